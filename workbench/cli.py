"""The command line: thin, one function a command; everything it does can be imported.

Exit codes: 0 done, 1 a fault of the workbench itself (with traceback), 2 something the user can put
right, 3 the run finished and missed an expectation of its recipe (without --set), 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from workbench import recipe
from workbench.errors import WorkbenchError

RECIPES = Path("recipes")
RUNS = Path("runs")
DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; make room (`workbench clean` shows what old runs take) and start again",
    errno.EDQUOT: "your disk quota is used up; make room and start again",
    errno.EROFS: "the file system is read-only; run where you may write",
    errno.EACCES: "permission denied; make it readable and writable for you, or run elsewhere",
    errno.EPERM: "not permitted; make it readable and writable for you, or run elsewhere",
}

out = Console()
err = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code."""
    # A thread that sleeps at once is woken late, and makes two threads slower than one on a small model; one
    # that spins for long, as is the default, takes the core of others. Read when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "6000")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        sys.exit(command(options))
    except WorkbenchError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _fail(f"{error.filename or 'writing'}: {DISK_ERRORS[error.errno]}")
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on where it stopped")
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    err.print(f"error: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def run(options: argparse.Namespace) -> int:
    """Run a recipe to its sheet, and show it."""
    return _walk(_load(options), options.runs, _command(options))


def _walk(loaded: recipe.Loaded, runs: Path, command: str) -> int:
    from workbench import sheet
    from workbench.run import walk

    finished, missed = walk.run(loaded, runs, command)
    sheet.render(finished, out)
    out.print(f"report: {runs / walk.run_name(loaded) / 'report.html'}", highlight=False, soft_wrap=True)
    for sentence in missed:
        err.print(f"missed: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)
    if missed and loaded.overrides:
        err.print("the ranges are those of the recipe without --set; this run is not held to them")
    return 3 if missed and not loaded.overrides else 0


def plan(options: argparse.Namespace) -> int:
    """Forecast a recipe; run nothing, but for the small runs of --probe."""
    loaded = _load(options)
    from workbench.run import forecast
    from workbench.run.walk import make_jobs, run_name
    from workbench.stages.train import processes_command
    from workbench.storage import Store

    forecasts = forecast.forecast(make_jobs(loaded.recipe, Store(options.runs / ".store")), probe=True)
    out.print(forecast.table(forecasts, loaded.recipe.replicates))
    if words := processes_command(loaded.recipe.engine):
        out.print("each training is started by:", shlex.join(words), highlight=False, soft_wrap=True)
    forecast.refuse(forecasts, options.runs / run_name(loaded))
    if options.probe:
        from workbench.run import worth

        found = worth.probe(loaded.recipe, Store(options.runs / ".store"))
        out.print(*worth.tables(found), sep="\n")
        out.print(worth.sentence(found), highlight=False)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate one model folder under a battery."""
    from workbench.run.single import evaluation_recipe

    loaded = evaluation_recipe(options.model, options.battery, options.seed)
    return _walk(loaded, options.runs, shlex.join(["workbench", "eval", str(options.model), options.battery]))


def export(options: argparse.Namespace) -> int:
    """Write a model folder in a format that other tools load."""
    from workbench.run.single import export_dense

    assert options.format == "dense"
    out.print(f"written: {export_dense(options.model, options.to)}", highlight=False, soft_wrap=True)
    return 0


def bench(options: argparse.Namespace) -> int:
    """Measure the low-bit kernels on the device at hand."""
    from rich.markdown import Markdown

    from workbench.quantization import bench as kernels

    table, files = kernels.bench(options.models, options.bits, options.to)
    out.print(Markdown(table))
    out.print("written:", *files, highlight=False, soft_wrap=True)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compare the rows of two runs, item by item."""
    from workbench.run.single import compare_runs

    out.print(compare_runs(options.first, options.second))
    return 0


def batch(options: argparse.Namespace) -> int:
    """Show the documents in one batch of a training."""
    from workbench.run.batch import rebuild, table

    rebuilt = rebuild(options.run, options.step, options.variant)
    out.print(table(rebuilt))
    out.print(rebuilt.verdict, highlight=False, soft_wrap=True)
    return 0 if rebuilt.logged in (None, rebuilt.digest) else 2


def list_all(options: argparse.Namespace) -> int:
    """Show every recipe and battery with its one line."""
    from workbench.evaluation.battery import EVALS, load_battery

    table = Table("recipe", "what it does")
    for path in sorted(RECIPES.rglob("*.yaml")):
        loaded = recipe.load(path)
        table.add_row(loaded.recipe.name, loaded.recipe.description)
    out.print(table)
    table = Table("battery", "what it measures")
    for path in sorted((EVALS / "batteries").glob("*.yaml")):
        table.add_row(path.stem, load_battery(path.stem).description)
    out.print(table)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Check the installation against the lock."""
    from workbench.doctor import report

    return report()


def clean(options: argparse.Namespace) -> int:
    """Say what runs take on disk, and remove what no run links to."""
    from workbench.run.clean import clean as sweep

    out.print(sweep(options.runs, remove=options.yes))
    return 0


def _load(options: argparse.Namespace) -> recipe.Loaded:
    """Load a recipe by its name below `recipes/`, or by its path."""
    given = Path(options.recipe)
    path = given if given.suffix == ".yaml" else RECIPES / f"{given}.yaml"
    return recipe.load(path, shlex.split(options.set))


def _command(options: argparse.Namespace) -> str:
    chosen = f" set={shlex.quote(options.set)}" if options.set else ""
    return f"make recipe={shlex.quote(options.recipe)}{chosen}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench", description="Adapt a LLaMA-3 model and measure what it cost."
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of all runs (default: runs)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=command.__doc__)
        added.set_defaults(command=command)
        return added

    for name, command in (("run", run), ("plan", plan)):
        with_recipe = add(name, command)
        with_recipe.add_argument("recipe", help="name below recipes/, or path of a .yaml file")
        with_recipe.add_argument("--set", default="", help='overrides, as "seed=2 stages.cpt.tokens=1e6"')
        if command is plan:
            with_recipe.add_argument(
                "--probe",
                action="store_true",
                help="is it worth it? train a hundredth of the first cpt stage at several shares of old text",
            )
    one = add("eval", evaluate)
    one.add_argument("model", type=Path, help="a Hugging Face model folder")
    one.add_argument("battery", help="a file of evals/batteries, without .yaml")
    one.add_argument(
        "--seed", type=int, default=1, help="seed of the miniature world that the battery asks about"
    )
    written = add("export", export)
    written.add_argument("model", type=Path, help="a model folder, quantized or not")
    written.add_argument(
        "format", choices=("dense",), help="dense: plain weights that stock transformers loads"
    )
    written.add_argument("to", type=Path, help="the folder to write; it must not exist")
    benched = add("bench", bench)
    benched.add_argument(
        "--models", nargs="+", default=(), metavar="SIZE", help="LLaMA-3 shapes: 1b, 3b, 8b, 70b"
    )
    benched.add_argument("--bits", nargs="+", type=int, default=(), help="widths, 1 to 8")
    benched.add_argument(
        "--to", type=Path, default=Path("kernels/lowbit/results"), help="folder of the results"
    )
    two = add("compare", compare)
    two.add_argument("first", type=Path, help="a finished run folder")
    two.add_argument("second", type=Path, help="another, evaluated under the same battery")
    one_batch = add("batch", batch)
    one_batch.add_argument("run", type=Path, help="folder of a run, finished or stopped")
    one_batch.add_argument("--step", type=int, required=True, help="as metrics.jsonl counts them, from 1")
    one_batch.add_argument("--variant", help="which training, where the run has several")
    add("list", list_all)
    add("doctor", doctor)
    swept = add("clean", clean)
    swept.add_argument("--yes", action="store_true", help="remove; without it, only say what would go")
    return parser


if __name__ == "__main__":
    main()
