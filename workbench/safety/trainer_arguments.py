"""What transformers' Trainer and DeepSpeed are told, for training on pairs as the one loop trains."""

from __future__ import annotations

from typing import Any

import torch

from workbench.recipe.schema import Engine
from workbench.safety.course import Course, Part
from workbench.training.engine import micro_batch_size, offloaded

BUCKET = 200_000_000  # numbers; beyond the model it only wastes memory, and DeepSpeed wants it even


def arguments(
    course: Course, part: Part, done: int, world: int, size: int, kind: type[Any], **own: Any
) -> Any:
    """Arguments for the rest of a part; what the Trainer would do besides training is off.

    Args:
        course: what all parts share.
        part: which of them.
        done: its steps that were made before.
        world: processes.
        size: numbers in the model.
        kind: class of the arguments, TrainingArguments or a child of it.
        own: what that class takes besides.
    """
    stage, engine = course.stage, course.engine
    micro = micro_batch_size(stage, world)
    return kind(
        output_dir=str(course.out / "checkpoints"),
        max_steps=part.steps - done,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=stage.batch_size // (micro * world),
        train_sampling_strategy="sequential",
        learning_rate=part.rate,
        weight_decay=stage.weight_decay,
        adam_beta1=stage.betas[0],
        adam_beta2=stage.betas[1],
        max_grad_norm=stage.clip,
        optim="adamw_torch_fused",
        gradient_checkpointing=engine.activation_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=engine.precision == "bfloat16",
        deepspeed=_deepspeed(engine, min(size + size % 2, BUCKET)),
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        seed=course.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **own,
    )


def _deepspeed(engine: Engine, bucket: int) -> dict[str, Any]:
    """DeepSpeed's configuration, with so many numbers to a bucket; the Trainer fills in what is auto.

    ZeRO is at stage 2 at least, for at stage 0 the Trainer does not get to know the norm of the gradient, and
    stage 2 is the faster one of the others.
    """
    zero: dict[str, Any] = {"stage": max(engine.zero_stage, 2), "contiguous_gradients": True}
    zero |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if engine.zero_stage == 3:
        zero |= {
            name: "auto" for name in ("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
        }
    zero |= offloaded(engine)
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
        "torch_autocast": {"enabled": engine.precision == "autocast", "dtype": "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
