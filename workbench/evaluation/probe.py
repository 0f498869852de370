"""The probe: a battery's first questions and windows, small enough to be asked inside the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.task import ConfigurableTask
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from workbench.data import TokenFile
from workbench.evaluation.battery import Battery, TaskEntry
from workbench.evaluation.harness import Harness
from workbench.evaluation.measurement import value
from workbench.evaluation.perplexity import perplexity


@dataclass(frozen=True)
class Question:
    """A task's document with its answers: for each, the row of tokens that it ends and its tokens."""

    task: ConfigurableTask
    doc: Any
    answers: list[tuple[int, list[int]]]


class Probe:
    """Scores a model on the first documents of each log-likelihood task and the first windows of each text.

    Everything is tokenized once. All processes may call it with the same arguments, as ZeRO-3 needs,
    and it leaves the model's mode and every random generator as they were. Tasks that generate text
    are left out: they are for the harness.

    Args:
        battery: what to ask.
        tokenizer: the model's own.
        texts: token files of the battery's texts by name.
        metadata: values that tasks are generated from.
        limit: documents of each task, and windows of each text.
    """

    def __init__(
        self,
        battery: Battery,
        tokenizer: PreTrainedTokenizerFast,
        texts: Mapping[str, TokenFile],
        metadata: Mapping[str, Any],
        limit: int,
    ) -> None:
        self.battery = battery
        self.texts = texts
        self.limit = limit
        harness = Harness(battery, metadata)
        self.rows: list[tuple[int, ...]] = []
        self._indices: dict[tuple[int, ...], int] = {}
        self.questions = {entry: self._questions(harness, entry, tokenizer) for entry in battery.tasks}

    def __call__(self, model: PreTrainedModel) -> dict[str, float]:
        """Values by the sheet's keys, such as {"retained.facts.acc": 0.82}."""
        training = model.training
        model.train(False)
        # A compiled model would compile again for every shape that is new here.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            values = self._accuracies(model) | self._perplexities(model)
        model.train(training)
        return values

    def _questions(
        self, harness: Harness, entry: TaskEntry, tokenizer: PreTrainedTokenizerFast
    ) -> list[Question]:
        questions = []
        for task in harness.tasks(entry).values():
            if task.OUTPUT_TYPE not in {"multiple_choice", "loglikelihood"}:
                continue
            task.build_all_requests(limit=min(self.limit, entry.limit or self.limit))
            answers: dict[int, list[tuple[int, list[int]]]] = {}
            for request in task.instances:
                context, continuation = encode_pair(tokenizer, *request.args)
                row = (*context, *continuation[:-1])
                index = self._indices.setdefault(row, len(self.rows))
                if index == len(self.rows):
                    self.rows.append(row)
                answers.setdefault(request.doc_id, []).append((index, continuation))
            docs = {request.doc_id: request.doc for request in task.instances}
            questions += [Question(task, docs[doc_id], answers[doc_id]) for doc_id in docs]
        return questions

    def _accuracies(self, model: PreTrainedModel) -> dict[str, float]:
        wanted: dict[int, set[tuple[int, ...]]] = {}
        for questions in self.questions.values():
            for question in questions:
                for index, continuation in question.answers:
                    wanted.setdefault(index, set()).add(tuple(continuation))
        scores = self._log_likelihoods(model, wanted)
        values = {}
        for entry, questions in self.questions.items():
            if questions:
                items = [(_score(question, entry, scores), 1.0) for question in questions]
                values[f"{entry.aspect}.{entry.name}.{entry.metric}"] = value(items, "mean")
        return values

    def _log_likelihoods(
        self, model: PreTrainedModel, wanted: Mapping[int, set[tuple[int, ...]]]
    ) -> dict[tuple[int, tuple[int, ...]], tuple[float, bool]]:
        """(log-likelihood, whether greedy) of each continuation that ends a row; long rows first."""
        device = next(model.parameters()).device
        scores = {}
        order = sorted(wanted, key=lambda index: -len(self.rows[index]))
        for start in range(0, len(order), self.battery.batch_size):
            batch = order[start : start + self.battery.batch_size]
            rows = [torch.tensor(self.rows[index]) for index in batch]
            tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # [B, L], padded on the right
            logits = model(input_ids=tokens.to(device), use_cache=False).logits  # [B, L, V]
            for index, row, of_row in zip(batch, rows, logits, strict=True):
                for continuation in wanted[index]:
                    span = of_row[len(row) - len(continuation) : len(row)].float().log_softmax(-1)
                    scores[index, continuation] = _gather(span, torch.tensor(continuation, device=device))
        return scores

    def _perplexities(self, model: PreTrainedModel) -> dict[str, float]:
        values = {}
        for entry in self.battery.language:
            first = entry.model_copy(update={"windows": min(self.limit, entry.windows or self.limit)})
            text = self.texts[entry.name]
            for measurement in perplexity(model, text, first, self.battery.batch_size, "probe", quiet=True):
                values[measurement.key] = measurement.value
        return values


def encode_pair(
    tokenizer: PreTrainedTokenizerFast, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Tokens of a context and its continuation, parted as lm-eval does it.

    Spaces at the end of the context go to the continuation, both are encoded together, and the length
    of the context alone says where to cut. An empty context is the BOS token (EOS where there is none).
    """
    if not context:
        prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        tokens = tokenizer.encode(continuation, add_special_tokens=False)
        return (tokens[:1], tokens[1:]) if tokens[0] == prefix else ([prefix], tokens)
    kept = context.rstrip()
    whole = tokenizer.encode(context + continuation)
    cut = len(tokenizer.encode(kept))
    return whole[:cut], whole[cut:]


def _gather(log_probabilities: Tensor, continuation: Tensor) -> tuple[float, bool]:
    """Sum over [T, V] log-probabilities at T tokens, and whether each was the likeliest."""
    greedy = bool((log_probabilities.argmax(-1) == continuation).all())
    return float(log_probabilities.gather(1, continuation[:, None]).sum()), greedy


def _score(
    question: Question, entry: TaskEntry, scores: Mapping[tuple[int, tuple[int, ...]], tuple[float, bool]]
) -> float:
    answers = [scores[index, tuple(continuation)] for index, continuation in question.answers]
    return float(question.task.process_results(question.doc, answers)[entry.metric])
