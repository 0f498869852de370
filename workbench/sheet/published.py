"""Published tables beside the rows of a sheet: what was printed, what was measured, how far they differ.

A published row is one of the model that a recipe starts with, `base`, or of a quantization of it; it is
matched by method, bits, group size and metric. Other protocols than ours can stand behind printed figures,
so that a difference is told and not judged.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from workbench import recipe
from workbench.errors import RecipeError
from workbench.evaluation.battery import EVALS, did_you_mean
from workbench.recipe.quantization import GroupSize
from workbench.recipe.section import Bits, Name, Section, Width
from workbench.sheet import wording
from workbench.sheet.preparation_table import Table
from workbench.sheet.sheet import Row, Sheet

BASE = "base"
COLLAPSED = 1e3  # a perplexity from which on figures are compared as a class

LEGEND = (
    "Difference: measured less published; of perplexities, relative to the published one. Printed figures"
    " have one decimal, and protocols differ in what the sources leave open. A perplexity above 1,000 is a"
    " collapse, whatever its digits."
)


class PublishedColumn(Section):
    """A metric of a published table, as a key of the sheet."""

    metric: str = Field(pattern=r"^[a-z]+\..+\..+$")
    percent: bool = Field(default=False, description="shares are printed in percent")
    caveat: str | None = Field(default=None, description="why a reader must not take the column at its word")


class PublishedRow(Section):
    """A row of a published table; what a method does not have is left out."""

    method: Name = Field(description="as in recipes; load: the model itself")
    bits: Width | None = None
    activation_bits: Bits | None = None
    group_size: GroupSize | None = None
    scores: tuple[float, ...] = Field(description="as printed, in the order of the columns")


class PublishedTable(Section):
    """A table, or several with the same columns, of one source."""

    source: str
    protocol: str
    columns: tuple[PublishedColumn, ...] = Field(min_length=1)
    rows: tuple[PublishedRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _full(self) -> PublishedTable:
        for row in self.rows:
            if len(row.scores) != len(self.columns):
                raise ValueError(f"{row.method} has {len(row.scores)} scores for {len(self.columns)} columns")
        return self


class Published(Section):
    """The published results of one model."""

    name: Name
    description: str
    tables: tuple[PublishedTable, ...] = Field(min_length=1)


def load_published(name: str) -> Published:
    """Read published results by their name in evals/published.

    Raises:
        RecipeError: no such results, or a problem in them; all problems are reported at once.
    """
    folder = EVALS / "published"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in sorted(folder.glob("*.yaml"))]
        raise RecipeError(
            f"{path}: no such published results; there are: {', '.join(known)}{did_you_mean(name, known)}"
        )
    return recipe.read(path, Published)


def tables(sheet: Sheet, published: Published) -> list[Table]:
    """Published against measured, a table a source; none where no row of the sheet has been published."""
    found = []
    for table in published.tables:
        lines, caveats = [], {}
        for row in sheet.rows:
            theirs = next((one for one in table.rows if _same(one, row)), None)
            for column, score in zip(table.columns, theirs.scores if theirs else (), strict=False):
                if column.metric in row.metrics:
                    printed = score / 100 if column.percent else score
                    lines.append(_line(sheet, row, column.metric, printed))
                    if column.caveat:
                        caveats[column.metric] = f" {wording.describe(column.metric)}: {column.caveat}."
        if lines:
            heading = ["row", "score", "published", "measured", "difference"]
            subtitle = f"{table.source}. Their protocol: {table.protocol}."
            legend = LEGEND + "".join(caveats.values())
            found.append(Table("Published against measured", subtitle, [heading, *lines], legend))
    return found


def _same(theirs: PublishedRow, row: Row) -> bool:
    """Whether a row of the sheet is made as the published one was, as far as its table tells."""
    if theirs.method == "load":
        return row.variant == BASE
    if row.parent != BASE or row.method != theirs.method:
        return False
    own = row.settings
    activation_bits = (own.get("method_settings") or {}).get("activation_bits") or own.get("bits")
    return (
        own.get("bits") == theirs.bits
        and "allocation" not in own  # whose bits are real ones, and a budget
        and theirs.group_size in (None, own.get("group_size"))
        and theirs.activation_bits in (None, activation_bits)
    )


def _line(sheet: Sheet, row: Row, metric: str, printed: float) -> list[str]:
    """Row, score, published, measured and difference, in words."""
    unit, measured = sheet.unit(metric), row.metrics[metric].value
    return [
        row.variant,
        wording.describe(metric),
        wording.score(printed, unit),
        wording.score(measured, unit),
        _difference(metric, printed, measured, sheet),
    ]


def _difference(metric: str, printed: float, measured: float | None, sheet: Sheet) -> str:
    if metric.endswith(".perplexity") and printed > COLLAPSED:
        fell = measured is None or measured > COLLAPSED
        return "both collapsed" if fell else "collapsed in print only"
    if measured is None:
        return ""
    unit = sheet.unit(metric)
    return wording.change(wording.shift(measured - printed, printed, unit), unit)
