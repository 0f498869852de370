"""The DeepSpeed engine of a stage: what the user tunes, and what follows from it.

DeepSpeed's own optimizers are compiled at first use; torch's AdamW is as fast and needs no compiler,
so it is handed in. ZeRO is Rajbhandari et al. (arXiv 1910.02054).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from workbench.errors import RecipeError
from workbench.recipe.schema import Engine
from workbench.recipe.training import TrainingStage
from workbench.training.anchor import Anchor, AnchoredAdamW
from workbench.training.objective import Objective


def micro_batch_size(stage: TrainingStage, world: int) -> int:
    """Sequences of one forward pass of one process.

    Raises:
        RecipeError: the global batch does not divide among the processes, or not into micro-batches.
    """
    if stage.batch_size % world:
        raise RecipeError(
            f"batch_size {stage.batch_size} does not divide among {world} processes; make it a "
            f"multiple of {world}"
        )
    rows = stage.batch_size // world
    micro = stage.micro_batch_size or rows
    if rows % micro:
        fitting = [size for size in range(1, rows + 1) if rows % size == 0]
        raise RecipeError(
            f"micro_batch_size {micro} does not divide the {rows} sequences of a process; use one "
            f"of {fitting}"
        )
    return micro


def build(
    objective: Objective, stage: TrainingStage, engine: Engine, world: int, anchor: Anchor | None = None
) -> Any:
    """Make the DeepSpeedEngine around an objective.

    The learning rate is the caller's to set before each step, and the loss the caller's to normalise.

    Args:
        objective: the model and its loss; the model is cast to the precision that the engine asks for.
        stage: hyper-parameters of AdamW and sizes of the batch.
        engine: what the user tunes.
        world: number of processes.
        anchor: what pulls the weights back; `state.begin` gives it its tensors.

    Raises:
        RecipeError: settings that do not go together.
    """
    import deepspeed  # late: see processes.start

    micro = micro_batch_size(stage, world)
    _check_offload(engine)
    if engine.precision != "bfloat16":
        objective.float()
    config = _config(objective, stage, engine, micro, world)
    made, *_ = deepspeed.initialize(
        model=objective,
        optimizer=_optimizer(objective, stage, anchor),
        config=config,
        dist_init_required=False,
    )
    if world == 1 and not made.zero_optimization():
        made.enable_backward_allreduce = False  # it would copy every gradient to add it to nothing
    if engine.compile:
        made.compile()
    return made


def _optimizer(objective: nn.Module, stage: TrainingStage, anchor: Anchor | None) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101, algorithm 2) with decay on matrices only: norms and biases must not shrink."""
    trainable = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {"lr": stage.learning_rate, "betas": stage.betas, "fused": True}
    if anchor:
        return AnchoredAdamW(groups, anchor.strength, **options)
    return torch.optim.AdamW(groups, **options)


def _check_offload(engine: Engine) -> None:
    if engine.offload == "optimizer" and engine.zero_stage == 0:
        raise RecipeError("engine.offload: optimizer needs zero_stage 1, 2 or 3; found 0")
    if engine.offload == "parameters" and engine.zero_stage != 3:
        raise RecipeError(f"engine.offload: parameters needs zero_stage 3; found {engine.zero_stage}")


def _config(
    objective: Objective, stage: TrainingStage, engine: Engine, micro: int, world: int
) -> dict[str, Any]:
    size = sum(parameter.numel() for parameter in objective.parameters())
    hidden: int = objective.model.config.hidden_size  # type: ignore[union-attr, assignment]
    # bfloat16 weights need float32 masters, which DeepSpeed has from stage 1 on, and stage 2 does faster.
    level = engine.zero_stage or (2 if engine.precision == "bfloat16" else 0)
    # Elements; buckets beyond the model only waste memory, and DeepSpeed wants them even.
    bucket = min(size + size % 2, 200_000_000)
    zero: dict[str, Any] = {
        "stage": level,
        "contiguous_gradients": True,
        "overlap_comm": torch.cuda.is_available(),
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if level == 3:
        zero["stage3_prefetch_bucket_size"] = hidden * hidden
        zero["stage3_param_persistence_threshold"] = (
            10 * hidden
        )  # norms and biases stay whole on every process
    zero |= offloaded(engine)
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": stage.batch_size // (micro * world),
        "gradient_clipping": stage.clip
        if level
        else 0.0,  # at stage 0 the loop clips, so that it knows the norm
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": engine.precision == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


def offloaded(engine: Engine) -> dict[str, Any]:
    """What of DeepSpeed's ZeRO section says which parts of a training lie in the memory of the host."""
    parts = {"none": [], "optimizer": ["optimizer"], "parameters": ["optimizer", "param"]}[engine.offload]
    pinned = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {f"offload_{part}": pinned for part in parts}
