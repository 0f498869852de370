"""The state of training by parameter name, whole and in float32, whatever ZeRO made of it.

This is what a checkpoint holds: it knows nothing of stages, partitions or processes, so that
training can go on under others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import RunError
from workbench.training import processes
from workbench.training.anchor import ANCHOR, IMPORTANCE, Anchor, AnchoredAdamW

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's running means of the gradient and of its square

State = dict[str, dict[str, Tensor]]  # kind ("weight" or a moment) -> parameter name -> tensor


def trainable(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Name, as the model knows it, and parameter of all that is trained."""
    for name, parameter in engine.module.model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def check_trainable(model: nn.Module, state: State) -> None:
    """Refuse a state that belongs to other parameters than those that are trained now.

    Raises:
        RunError: naming the first that differ.
    """
    now = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    then = {name: tuple(tensor.shape) for name, tensor in state["weight"].items()}
    differing = [name for name in now | then if now.get(name) != then.get(name)]
    if differing:
        named = "; ".join(
            f"{name}: {list(then[name]) if name in then else 'frozen'} in the checkpoint, "
            f"{list(now[name]) if name in now else 'frozen'} now"
            for name in differing[:3]
        )
        raise RunError(
            f"the checkpoint trained {len(then)} parameters, this recipe trains {len(now)}, and "
            f"{len(differing)} differ ({named}); restore the settings of the method, or delete the "
            "checkpoints to train from the start"
        )


def gather(engine: Any, *, keep: bool) -> State:
    """Collect weights and moments from all processes; every process must call this.

    Args:
        engine: a DeepSpeedEngine.
        keep: return the tensors; the other processes only contribute theirs and get empty tables.
    """
    state: State = {"weight": {}, **{moment: {} for moment in MOMENTS}}
    for name, parameter in trainable(engine):
        for kind, table in state.items():
            tensor = _weight(engine, parameter) if kind == "weight" else _moment(engine, parameter, kind)
            if keep:
                table[name] = tensor.to("cpu", torch.float32, copy=True)
    return state


def updates(engine: Any) -> int:
    """Steps that AdamW has counted, which its bias correction depends on."""
    return int(next(iter(_adamw(engine).state.values()))["step"])


def begin(
    engine: Any, count: int, anchor: Anchor | None = None, start: Mapping[str, Tensor] | None = None
) -> None:
    """Make AdamW's moments, all zero, before the first step instead of in it; and what an anchor needs.

    DeepSpeed links parameters to moments after the step of the first parameter group, when those of
    the second are not there yet.

    Args:
        engine: a DeepSpeedEngine that has made no step yet.
        count: updates that AdamW has counted, 0 at the start of a training.
        anchor: what pulls the weights back.
        start: theta_0 by parameter name, whole on every process; needed with an anchor.
    """
    adamw, kinds = _adamw(engine), anchor.kinds if anchor else ()
    for parameter in _stepped(engine):
        adamw.state[parameter] = {
            "step": torch.tensor(float(count), device=parameter.device),
            **{kind: torch.zeros_like(parameter, requires_grad=False) for kind in (*MOMENTS, *kinds)},
        }
        if anchor:  # a copy, so that what pads a partition is at its anchor
            adamw.state[parameter][ANCHOR].copy_(parameter.detach())
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    if anchor:
        assert start is not None
        tables = {ANCHOR: start, IMPORTANCE: anchor.importance or {}}
        for name, parameter in trainable(engine):
            for kind in kinds:
                _put(engine, parameter, kind, tables[kind][name])


def restore(engine: Any, state: State) -> None:
    """Put weights and moments back into an engine whose moments have been made.

    Under ZeRO only the float32 masters are set. To train on, the weights must already have been in the
    model when the engine was built; to `release` the model, the masters are enough.

    Args:
        engine: a DeepSpeedEngine.
        state: what `gather` gave, whole on every process.
    """
    for name, parameter in trainable(engine):
        for kind, table in state.items():
            _put(engine, parameter, kind, table[name])


def optimizer_bytes(engine: Any) -> int:
    """Bytes of AdamW's state on this process: the moments, and what an anchor has beside them."""
    tables = _adamw(engine).state.values()
    return sum(tensor.nbytes for table in tables for tensor in table.values())


def anchor_penalty(engine: Any) -> float:
    """The anchor's penalty before the last update, over all processes; 0 without an anchor."""
    adamw = _adamw(engine)
    if not isinstance(adamw, AnchoredAdamW):
        return 0.0
    mine = torch.tensor(adamw.take_penalty(), dtype=torch.float64, device=processes.device())
    return float(processes.total(mine) if _partitioned(engine) else mine)


def release(engine: Any, dtype: torch.dtype) -> None:
    """Take the engine apart and leave an ordinary model with the final weights; every process must call this.

    Args:
        engine: the DeepSpeedEngine; of no use afterwards.
        dtype: of the weights that stay, rounded once from float32.
    """
    import deepspeed

    whole: dict[int, nn.Parameter] = {}
    with torch.no_grad():
        for parameter in engine.module.parameters():
            if parameter.requires_grad:
                tensor = _weight(engine, parameter)
            else:
                with deepspeed.zero.GatheredParameters([parameter]):
                    tensor = parameter.detach().clone()
            whole[id(parameter)] = nn.Parameter(
                tensor.to(dtype, copy=True), requires_grad=parameter.requires_grad
            )
    engine.destroy()
    for module in engine.module.modules():
        # ZeRO-3 swaps the plain table for one that gathers on access.
        module._parameters = {key: p if p is None else whole[id(p)] for key, p in module._parameters.items()}


def _partitioned(engine: Any) -> bool:
    return bool(engine.zero_optimization())


def _adamw(engine: Any) -> torch.optim.AdamW:
    optimizer: torch.optim.AdamW = engine.optimizer.optimizer if _partitioned(engine) else engine.optimizer
    return optimizer


def _stepped(engine: Any) -> list[nn.Parameter]:
    """The tensors that AdamW sees: the parameters themselves, or this process's flat partitions of them."""
    if hasattr(engine.optimizer, "fp32_partitioned_groups_flat"):  # stage 3
        partitions: list[nn.Parameter] = engine.optimizer.fp32_partitioned_groups_flat
        return partitions
    return [parameter for group in _adamw(engine).param_groups for parameter in group["params"]]


def _weight(engine: Any, parameter: nn.Parameter) -> Tensor:
    from deepspeed.utils import safe_get_full_fp32_param

    if _partitioned(engine):
        weight: Tensor = safe_get_full_fp32_param(parameter)
        return weight
    return parameter.detach()


def _moment(engine: Any, parameter: nn.Parameter, moment: str) -> Tensor:
    from deepspeed.utils import safe_get_full_optimizer_state

    if _partitioned(engine):
        tensor: Tensor = safe_get_full_optimizer_state(parameter, moment)
        return tensor
    return engine.optimizer.state[parameter][moment]  # type: ignore[no-any-return]


@torch.no_grad()
def _put(engine: Any, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
    """Set the float32 weight or one kind of state of a parameter from its whole value."""
    from deepspeed import utils

    value = value.to(parameter.device, torch.float32)
    if not _partitioned(engine):
        (parameter if kind == "weight" else engine.optimizer.state[parameter][kind]).copy_(value)
    elif hasattr(parameter, "ds_id"):  # stage 3, whose own setter fails where the parts are padded
        numel = parameter.partition_numel()  # type: ignore[attr-defined]
        padded = nn.functional.pad(value.flatten(), (0, numel * engine.world_size - value.numel()))
        mine = padded.narrow(0, numel * engine.global_rank, numel)
        if kind == "weight":
            utils.safe_set_local_fp32_param(parameter, mine)
        else:
            utils.safe_set_local_optimizer_state(parameter, mine, kind)
    elif kind == "weight":
        utils.safe_set_full_fp32_param(parameter, value)
    else:
        utils.safe_set_full_optimizer_state(parameter, value, kind)
