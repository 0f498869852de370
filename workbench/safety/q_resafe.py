"""Q-resafe: patching the safety of a quantized model (Chen et al., arXiv 2506.20251, algorithm 1).

    1.  D = {(x, y_w, y_l)}: y_w from the aligned model in full precision, y_l from the quantized one
    2.  L = - log sigma( beta [ log Q(y_w|x) / Q_0(y_w|x) - log Q(y_l|x) / Q_0(y_l|x) ] )
    3.  every K steps S_ij = E_D |W_ij dL/dW_ij| (SNIP); the share tau of greatest score is safety-critical
    4.  A_{t+1} = A_t - eta M_A dL/dA,  B_{t+1} = B_t - eta M_B dL/dB,  Q_{t+1} = Q_0 + Quant(A B)

The paper leaves open, and here it is so: tau counts weights of each linear. M_A keeps the rows of A and M_B
the columns of B that meet any safety-critical weight, so a share as large as the paper's keeps nearly all of
them; what was kept is reported. Only pairs made of triplets are scored, W being the weight in use. The step
is AdamW's. A begins at zero, and A B is scaled by alpha / r. Quant rounds the factors to 16 bits, stored
beside the codes of Q_0: added to the codes they would have to be rounded onto their grid, on which so light
an update is lost.

Letters: W [out, in], A [out, r], B [r, in]; M_A [out, 1], M_B [1, in].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from workbench.errors import RunError
from workbench.progress import console
from workbench.recipe.safety import Dpo, QResafe
from workbench.safety import dpo
from workbench.safety.course import Course, Outcome
from workbench.safety.mogu import collate
from workbench.safety.patched import begin, finish, patched, unpatched, whole
from workbench.training import processes
from workbench.training.objective import cross_entropies

MASKS = ("M_A", "M_B", "C_A", "C_B")


def patch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, course: Course, settings: QResafe
) -> tuple[Outcome, dict[str, Any]]:
    """Patch a quantized model in place; every process calls this.

    Args:
        model: Q_0, the start and the reference; afterwards quantized linears with the factors beside them.
        tokenizer: of the model.
        course: the pairs.
        settings: rank, tau, K and beta.

    Returns:
        What the training cost, and what the masks kept last: shares of the rows of all A and of the columns
        of all B.

    Raises:
        ModelError: nothing in the model is quantized.
        NumericsError: loss, gradient or a factor is not finite.
        RunError: the folder cannot be written, or its checkpoints belong to another training.
    """
    begin(model, settings, course.seed)
    masks = _Masks(model, course, settings)
    outcome = dpo.prefer(model, tokenizer, course, Dpo(beta=settings.beta), [masks])
    kept = {
        "rows_trained": _share(layer.M_A for layer in patched(model).values()),
        "columns_trained": _share(layer.M_B for layer in patched(model).values()),
    }
    if settings.tau < 1 and min(kept.values()) == 1:
        said = f"tau {settings.tau:g} held nothing back: every row and column meets a safety-critical weight"
        outcome = replace(outcome, told=[*outcome.told, f"{said}, so what was trained is plain LoRA"])
    finish(model)
    return outcome, kept


def snip(model: PreTrainedModel, rows: Sequence[dict[str, Any]], beta: float) -> dict[str, Tensor]:
    """S = E |W dL/dW| of every patched linear; takes the memory of all W in float32.

    Args:
        model: as `begin` made it, masked or not.
        rows: the pairs of the mean, as `pairs.encode` gives them.
        beta: of L.

    Returns:
        By name, [out, in] float32.
    """
    layers = patched(model)
    sums: dict[str, Tensor] = {}
    for row in rows:
        batch = {name: tensor.to(model.device) for name, tensor in collate([row]).items()}
        for name, gradient in _gradients(model, batch, beta):
            sums[name] = sums.get(name, 0) + gradient.abs()
    scores = {}
    for name, total in sums.items():
        with whole(layers[name]):
            scores[name] = layers[name].weight().abs() * total / len(rows)
    return scores


def critical(scores: Tensor, tau: float) -> Tensor:
    """The share tau of the weights whose score is greatest: [out, in] bool of scores [out, in]."""
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[scores.flatten().topk(round(tau * scores.numel())).indices] = True
    return chosen.view_as(scores)


class _Masks(TrainerCallback):
    """Masks anew before every K-th step; what they were is on disk, so that a stopped training goes on."""

    def __init__(self, model: PreTrainedModel, course: Course, settings: QResafe) -> None:
        self.model, self.settings = model, settings
        self.steps, self.title = len(course.order), course.title
        self.rows = [row for row in course.rows if row["malicious"]]
        self.folder = course.out / "checkpoints"
        self.known = False  # whether this try has masks yet

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the step that comes."""
        step = self.steps - args.max_steps + state.global_step  # max_steps: those of this try
        if step and not self.known:
            self._read((step - 1) // self.settings.every * self.settings.every)
        if step % self.settings.every == 0:
            self._renew(args.process_index, args.world_size)
            if processes.is_first_process():
                self._write(step)
        self.known = True

    def _renew(self, rank: int, world: int) -> None:
        layers, count = patched(self.model), len(self.rows)
        if processes.is_first_process():
            console.print(f"{self.title}: scoring weights on {count} pairs", highlight=False, soft_wrap=True)
        # All processes have equally many; where that does not come out, the first pairs count twice.
        places = range(rank, ceil(count / world) * world, world)
        scores = snip(self.model, [self.rows[place % count] for place in places], self.settings.beta)
        for name, layer in layers.items():
            with whole(layer):
                layer.keep(critical(processes.total(scores.pop(name)), self.settings.tau))

    def _path(self, step: int) -> Path:
        return self.folder / f"masks-{step:09d}.safetensors"

    def _write(self, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {
            f"{name}.{part}": getattr(layer, part).contiguous()
            for name, layer in patched(self.model).items()
            for part in MASKS
        }
        path = self._path(step)
        partial = path.with_suffix(".partial")
        try:
            save_file(kept, partial)
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise RunError(
                f"{path}: the masks could not be written ({error}); make room or make the folder writable, "
                "then start the same command again; it goes on from the last checkpoint"
            ) from error

    def _read(self, step: int) -> None:
        kept = load_file(self._path(step), str(self.model.device))
        for name, layer in patched(self.model).items():
            for part in MASKS:
                setattr(layer, part, kept[f"{name}.{part}"].to(getattr(layer, part).dtype))


def _gradients(model: PreTrainedModel, batch: dict[str, Tensor], beta: float) -> Iterator[tuple[str, Tensor]]:
    """dL/dW [out, in] of one pair, linear after linear; no parameter is given a gradient."""
    with torch.no_grad(), unpatched(model):
        reference = _log_ratio(model, batch)
    layers = patched(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _, given, y: seen.update({name: (given[0].detach(), y)})

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        loss = -logsigmoid(beta * (_log_ratio(model, batch) - reference))
    finally:
        for hook in hooks:
            hook.remove()
    slopes = torch.autograd.grad(loss, [y for _, y in seen.values()])
    for (name, (x, _)), dy in zip(seen.items(), slopes, strict=True):
        inputs = layers[name].rounded(x).flatten(0, -2).float()
        yield name, dy.flatten(0, -2).float().T @ inputs


def _log_ratio(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """The difference log Q(y_w|x) - log Q(y_l|x) of one pair, a scalar."""
    seen = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits, labels = model(**seen, use_cache=False).logits[:, :-1], batch["labels"][:, 1:]
    nats = cross_entropies(logits.flatten(0, 1), labels.flatten()).view(labels.shape).sum(1)
    return nats[1] - nats[0]


def _share(masks: Iterable[Tensor]) -> float:
    """How much of all masks together is kept."""
    counts = [(int(mask.sum()), mask.numel()) for mask in masks]
    return sum(kept for kept, _ in counts) / sum(size for _, size in counts)
