"""What import-linter cannot see: every module has its tests, and a recipe is checked without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {"workbench": "tests/workbench", "kernels": "tests/kernels"}

# Modules whose promises are stated elsewhere than in the file that mirrors them.
TESTED_IN = {
    "kernels/lowbit/affine_linear/packed.py": "tests/kernels/lowbit/affine_linear/test_op.py",
    "kernels/lowbit/bench/peers.py": "tests/kernels/lowbit/bench/test_bench.py",
    "kernels/lowbit/dispatch.py": "tests/kernels/lowbit/affine_linear/test_op.py",
    "workbench/miniworld/base_language.py": "tests/workbench/miniworld/test_questions.py",
    "workbench/miniworld/facts.py": "tests/workbench/miniworld/test_questions.py",
    "workbench/miniworld/instructions.py": "tests/workbench/miniworld/test_attacks.py",
    "workbench/miniworld/new_language.py": "tests/workbench/miniworld/test_questions.py",
    "workbench/miniworld/tongue.py": "tests/workbench/miniworld/test_corpus.py",
    "workbench/quantization/export/dense.py": "tests/workbench/run/test_single.py",
    "workbench/safety/course.py": "tests/workbench/safety/test_trainer.py",
    "workbench/safety/trainer_arguments.py": "tests/workbench/safety/test_trainer.py",
    "workbench/sheet/canvas.py": "tests/workbench/sheet/test_plots.py",
    **dict.fromkeys(
        (f"workbench/sheet/{name}.py" for name in ("ledger", "safety_findings", "safety_plot")),
        "tests/workbench/sheet/test_safety.py",
    ),
    **dict.fromkeys(
        (f"workbench/stages/{name}.py" for name in ("evaluate", "load", "prepare", "result", "train")),
        "tests/workbench/run/test_walk.py",
    ),
    **dict.fromkeys(
        (
            "workbench/run/rows.py",
            "workbench/stages/blueprint.py",
            "workbench/stages/merge.py",
            "workbench/stages/method.py",
        ),
        "tests/workbench/run/test_retention.py",
    ),
    "workbench/stages/identity.py": "tests/workbench/stages/test_job.py",
    "workbench/stages/answering.py": "tests/workbench/stages/test_safety.py",
    "workbench/stages/allocation.py": "tests/workbench/stages/test_quantize.py",
    "workbench/stages/calibration.py": "tests/workbench/stages/test_quantize.py",
    "workbench/stages/vocabulary.py": "tests/workbench/run/test_vocabulary.py",
    "workbench/errors.py": "tests/workbench/recipe/test_check.py",
    "workbench/recipe/curricula.py": "tests/workbench/recipe/test_check_curricula.py",
    "workbench/recipe/safety.py": "tests/workbench/recipe/test_check_safety.py",
    "workbench/recipe/quantization.py": "tests/workbench/recipe/test_quantize.py",
    "workbench/recipe/grammar.py": "tests/workbench/recipe/test_loading.py",
    "workbench/recipe/training.py": "tests/workbench/training/test_schedule.py",
    "workbench/stages/curriculum.py": "tests/workbench/run/test_batch.py",
    **dict.fromkeys(
        (f"workbench/recipe/{name}.py" for name in ("inputs", "methods", "schema", "section")),
        "tests/workbench/recipe/test_validation.py",
    ),
    "workbench/data/encoding.py": "tests/workbench/data/test_tokens.py",
    "workbench/data/formats.py": "tests/workbench/data/test_sources.py",
    "workbench/data/prepared.py": "tests/workbench/data/test_preparation.py",
    "workbench/recipe/preparation.py": "tests/workbench/recipe/test_check_preparation.py",
    "workbench/recipe/__main__.py": "tests/workbench/recipe/test_check.py",
    **dict.fromkeys(
        (
            f"kernels/lowbit/affine_linear/kernel_{part}.py"
            for part in ("tiles", "gemm", "gemv", "dequantize", "backward")
        ),
        "tests/kernels/lowbit/affine_linear/test_kernel.py",
    ),
    "kernels/lowbit/affine_linear/cpu.py": "tests/kernels/lowbit/affine_linear/test_op.py",
    "kernels/lowbit/codebook_linear/kernel.py": "tests/kernels/lowbit/affine_linear/test_kernel.py",
    "kernels/lowbit/codebook_linear/cpu.py": "tests/kernels/lowbit/codebook_linear/test_op.py",
    **dict.fromkeys(
        (
            f"kernels/lowbit/bench/{name}.py"
            for name in ("contestants", "floor", "protocol", "report", "shapes", "timing")
        ),
        "tests/kernels/lowbit/bench/test_bench.py",
    ),
}


def test_every_module_has_its_tests() -> None:
    missing = []
    for source, tests in TESTS.items():
        for module in sorted((ROOT / source).rglob("*.py")):
            name = module.relative_to(ROOT).as_posix()
            mirror = Path(tests) / module.relative_to(ROOT / source).with_name(f"test_{module.name}")
            expected = TESTED_IN.get(name, mirror.as_posix())
            if module.name != "__init__.py" and not (ROOT / expected).exists():
                missing.append(f"{name}: no {expected}")
    assert not missing, "\n".join(missing)


def test_no_stale_exception() -> None:
    assert not [name for name in TESTED_IN if not (ROOT / name).exists()]


def test_kernels_is_no_package() -> None:
    """A package by that name would shadow the one that transformers looks for."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_recipe_check_loads_nothing_heavy() -> None:
    """The contract in pyproject.toml holds what our files import; this holds what that loads in fact."""
    code = "import sys, workbench.recipe, workbench.cli; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "datasets"} & set(loaded.stdout.split())
