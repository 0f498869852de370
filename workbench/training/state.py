"""The state of training by parameter name, whole and in float32, whatever ZeRO made of it.

This is what a checkpoint holds: it knows nothing of stages, partitions or processes, so that
training can go on under others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's running means of the gradient and of its square

State = dict[str, dict[str, Tensor]]  # kind ("weight" or a moment) -> parameter name -> tensor


def trainable(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Name, as the model knows it, and parameter of all that is trained."""
    for name, parameter in engine.module.model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


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


def begin(engine: Any, count: int) -> None:
    """Make AdamW's moments, all zero, before the first step instead of in it.

    DeepSpeed links parameters to moments after the step of the first parameter group, when those of
    the second are not there yet.

    Args:
        engine: a DeepSpeedEngine that has made no step yet.
        count: updates that AdamW has counted, 0 at the start of a training.
    """
    adamw = _adamw(engine)
    for parameter in _stepped(engine):
        adamw.state[parameter] = {
            "step": torch.tensor(float(count), device=parameter.device),
            **{moment: torch.zeros_like(parameter, requires_grad=False) for moment in MOMENTS},
        }
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def restore(engine: Any, state: State) -> None:
    """Put weights and moments back into an engine whose moments have been made.

    The weights must already have been in the model when the engine was built; here they only bring
    the float32 masters of bfloat16 weights to full precision.

    Args:
        engine: a new DeepSpeedEngine.
        state: what `gather` gave, whole on every process.
    """
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    for name, parameter in trainable(engine):
        for moment in MOMENTS:
            tensor = state[moment][name].to(parameter.device)
            if _partitioned(engine):
                safe_set_full_optimizer_state(parameter, tensor, moment)
            else:
                engine.optimizer.state[parameter][moment].copy_(tensor)
        if _partitioned(engine):
            safe_set_full_fp32_param(parameter, state["weight"][name].to(parameter.device))


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
