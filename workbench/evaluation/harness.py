"""The bridge to lm-eval: its tasks are built once, then asked of any model that is already loaded.

Source: Gao et al., "The Language Model Evaluation Harness", doi 10.5281/zenodo.12608602.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval.api.task
import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.task import TaskConfig
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from workbench.data import TokenFile
from workbench.errors import DataError, NumericsError, RecipeError
from workbench.evaluation.battery import EVALS, Battery, TaskEntry, check_battery, did_you_mean, task_files
from workbench.evaluation.measurement import Measurement, read, write
from workbench.evaluation.perplexity import perplexity
from workbench.progress import Advance, progress

# lm-eval's command line seeds python with 0 and everything else with 1234.
PYTHON_SEED, SEED = 0, 1234
STRUCTURE = {"include", "class", "group", "task_list"}

# Bars and remarks that appear for each task and row; the workbench shows progress of its own.
lm_eval.api.task.tqdm = functools.partial(lm_eval.api.task.tqdm, disable=True)
logging.getLogger("lm_eval").setLevel(logging.ERROR)


class Harness:
    """The tasks of a battery, built once and asked of every row.

    Args:
        battery: what to ask.
        metadata: values that tasks are generated from, such as the seed of the miniature world.

    Raises:
        RecipeError: an unknown task, or a task file that lm-eval cannot use.
        DataError: a task's data set is neither in the cache nor to be had.
    """

    def __init__(self, battery: Battery, metadata: Mapping[str, Any]) -> None:
        check_battery(battery)
        folders = [EVALS / name for name in battery.task_folders]
        manager = TaskManager(
            include_path=[str(folder) for folder in folders],
            include_defaults=battery.builtin,
            metadata=dict(metadata),
        )
        for folder in folders:
            _check_keys(folder, manager)
        self.battery = battery
        with _seeded():
            self._tasks = {entry: _load(manager, entry) for entry in battery.tasks}

    def tasks(self, entry: TaskEntry) -> dict[str, ConfigurableTask]:
        """The leaf tasks of an entry by name, with few-shot examples drawn as if for the first time."""
        for task in self._tasks[entry].values():
            task.set_fewshot_seed(SEED)
        return self._tasks[entry]

    def ask(self, entry: TaskEntry, model: LM) -> tuple[Measurement, list[dict[str, Any]]]:
        """Score one entry of the battery on a model.

        Returns:
            The measurement, and lm-eval's record of each question under the entry's filter.

        Raises:
            RecipeError: the task does not have the entry's metric or filter, or the metric is not a mean.
            NumericsError: a log-likelihood is not a finite number.
        """
        tasks = self.tasks(entry)
        with _seeded():
            results = lm_evaluate(
                model,
                {"tasks": tasks},
                limit=entry.limit,
                bootstrap_iters=0,
                apply_chat_template=self.battery.chat or entry.chat,
                fewshot_as_multiturn=self.battery.chat or entry.chat,
            )
        records = [
            _record(entry, leaf, sample)
            for leaf in tasks
            for sample in _chosen(entry, results["samples"][leaf])
        ]
        directions = {bool(task.higher_is_better().get(entry.metric, True)) for task in tasks.values()}
        measurement = Measurement(
            aspect=entry.aspect,
            task=entry.name,
            metric=entry.metric,
            items={record["id"]: (record["value"], 1.0) for record in records},
            aggregation="mean",
            higher_is_better=directions == {True},
            protocol=_protocol(entry, tasks, records, self.battery),
            chance=_chance(tasks, records),
        )
        return measurement, records


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    harness: Harness,
    texts: Mapping[str, TokenFile],
    out: Path,
    *,
    title: str,
) -> list[Measurement]:
    """Measure one row under a battery: every task and text, each to a file of its own.

    Writes `out/<aspect>.<name>.json` with `measurements` (see `Measurement.to_json`) and `samples`
    (one record a question); what is there already is read instead of measured again.

    Args:
        model: any causal language model, quantized or not.
        tokenizer: the model's own.
        harness: the battery with its tasks.
        texts: token files of the battery's held-out texts by name.
        out: folder of the row.
        title: the row's name, for the progress lines.
    """
    battery = harness.battery
    out.mkdir(parents=True, exist_ok=True)
    asked = LoadedModel(model, tokenizer, battery.batch_size, title)
    for entry in battery.tasks:
        path = out / f"{entry.aspect}.{entry.name}.json"
        if not path.exists():
            measurement, samples = harness.ask(entry, asked)
            write(path, [measurement], samples)
    for text in battery.language:
        path = out / f"{text.aspect}.{text.name}.json"
        if not path.exists():
            write(path, perplexity(model, texts[text.name], text, battery.batch_size, title))
    return read(out)


class LoadedModel(HFLM):  # type: ignore[misc]
    """lm-eval's Hugging Face model class around a model in memory, with the workbench's progress and checks.

    A text is encoded as the tokenizer does by default; a text without context follows the BOS token.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, title: str
    ) -> None:
        # lm-eval gives the tokenizer a padding token if it lacks one; that must not be saved with a model.
        super().__init__(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            backend="causal",
            batch_size=batch_size,
            softmax_dtype="float32",
        )
        self.title = title

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is what greedy decoding gives."""
        task = requests[0].task_name
        with progress(f"{self.title}: {task}", len(requests), "answers") as advance:
            self.set_cache_hook(_Counter(advance))
            answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
            return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy text after each prompt, or as the task says."""
        with progress(f"{self.title}: {requests[0].task_name}", len(requests), "texts") as advance:
            self.set_cache_hook(_Counter(advance))
            texts: list[str] = super().generate_until(requests, disable_tqdm=True)
            return texts

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], *args: Any, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        longest = max(len(context) + len(continuation) for _, context, continuation in requests)
        if longest > self.max_length + 1:
            raise RecipeError(
                f"{self.title}: a prompt has {longest - 1} tokens, the model's context is {self.max_length}; "
                "ask for fewer shots, or leave the task out of the battery"
            )
        answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, *args, **kwargs)
        return answers


class _Counter(CacheHook):  # type: ignore[misc]
    """Counts the finished requests that lm-eval reports to its cache hook; nothing is cached."""

    def __init__(self, advance: Advance) -> None:
        super().__init__(None)
        self.advance = advance

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self.advance(1)


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed as lm-eval's command line does; afterwards all generators go on as if nothing had been."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(PYTHON_SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _check_keys(folder: Path, manager: TaskManager) -> None:
    allowed = {field.name for field in dataclasses.fields(TaskConfig)} | STRUCTURE
    for name, path in task_files(folder).items():
        if name not in manager.task_index:
            raise RecipeError(f"{path}: lm-eval cannot read it; does the file that it includes exist?")
        config = manager.task_index[name].cfg
        for key in set() if "group" in config else set(config) - allowed:
            raise RecipeError(f"{path}: lm-eval knows no task key {key!r}{did_you_mean(key, allowed)}")


def _load(manager: TaskManager, entry: TaskEntry) -> dict[str, ConfigurableTask]:
    try:
        tasks: dict[str, ConfigurableTask] = manager.load([entry.task])["tasks"]
    except (ConnectionError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"task {entry.task}: its data set is not in the local cache and could not be fetched ({reason}); "
            "connect to the network once, or take the task out of the battery"
        ) from error
    for task in tasks.values():
        if entry.shots is not None:
            task.set_config("num_fewshot", entry.shots)
        elif task.config.num_fewshot is None:
            task.set_config("num_fewshot", 0)
    return tasks


def _chosen(entry: TaskEntry, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = [sample for sample in samples if sample["filter"] == entry.filter]
    if not chosen:
        filters = sorted({sample["filter"] for sample in samples})
        raise RecipeError(f"task {entry.task} has no filter {entry.filter!r}; it has: {', '.join(filters)}")
    return chosen


def _record(entry: TaskEntry, leaf: str, sample: dict[str, Any]) -> dict[str, Any]:
    if entry.metric not in sample["metrics"]:
        metrics = ", ".join(sample["metrics"])
        raise RecipeError(f"task {entry.task} has no metric {entry.metric!r}; it has: {metrics}")
    score = sample[entry.metric]
    if not isinstance(score, int | float | np.number):
        raise RecipeError(f"task {entry.task}: {entry.metric} is not one number a question: it has no mean")
    answers = [answer for repeats in sample["resps"] for answer in repeats]
    if any(isinstance(answer, tuple) and not math.isfinite(answer[0]) for answer in answers):
        raise NumericsError(
            f"task {leaf}, question {sample['doc_id']}: a log-likelihood is not finite, so the model's "
            "weights or activations overflow; evaluate it in float32, or leave this row out"
        )
    kept = ("doc_id", "doc", "target", "resps", "doc_hash", "prompt_hash", "target_hash")
    logged = json.dumps({key: sample[key] for key in kept}, default=handle_non_serializable)
    identity = f"{leaf}/{sample['doc_id']}/{sample['doc_hash'][:12]}"
    return {"id": identity, "task": leaf, "value": float(score), **json.loads(logged)}


def _protocol(
    entry: TaskEntry, tasks: Mapping[str, ConfigurableTask], records: list[dict[str, Any]], battery: Battery
) -> str:
    versions = sorted({str(task.VERSION) for task in tasks.values()})
    shots = sorted({task.config.num_fewshot for task in tasks.values()})
    prompts = hashlib.sha256("".join(record["prompt_hash"] for record in records).encode()).hexdigest()[:8]
    return (
        f"lm-eval {importlib.metadata.version('lm_eval')} hf; {entry.task} version {', '.join(versions)}; "
        f"{', '.join(map(str, shots))} shots; limit {entry.limit or 'none'}; filter {entry.filter}; "
        f"{'chat template; ' if battery.chat or entry.chat else ''}batch {battery.batch_size}; "
        f"{len(records)} prompts {prompts}"
    )


def _chance(tasks: Mapping[str, ConfigurableTask], records: list[dict[str, Any]]) -> float | None:
    if any(task.OUTPUT_TYPE != "multiple_choice" for task in tasks.values()):
        return None
    total = 0.0
    for record in records:
        task, doc = tasks[record["task"]], record["doc"]
        right = task.doc_to_target(doc)
        total += (len(right) if isinstance(right, list) else 1) / len(task.doc_to_choice(doc))
    return total / len(records)
