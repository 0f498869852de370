"""The report: one page that opens anywhere, and the files that lie beside it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from workbench import storage
from workbench.sheet import (
    canvas,
    compare,
    findings,
    frontier,
    guard_table,
    ledger,
    plots,
    preparation_table,
    published,
    race_table,
    stability,
    statistics,
    status,
    table,
    wording,
)
from workbench.sheet.canvas import Drawing
from workbench.sheet.markdown import markdown
from workbench.sheet.published import Published
from workbench.sheet.sheet import Curve, Row, Sheet, check_expectations, expected_metric
from workbench.sheet.stability import Stability
from workbench.sheet.table import Cell, Column

_FEW_ITEMS = 30


def write(
    folder: Path,
    sheet: Sheet,
    curves: Sequence[Curve],
    command: str,
    record: Mapping[str, Any],
    expect: Mapping[str, tuple[float, float]] | None = None,
    printed: Published | None = None,
) -> None:
    """Write sheet.json, sheet.md, report.html and plots/, each whole or not at all.

    Where a retained and a new skill were measured there is frontier.json, where training was probed
    stability.json.

    Args:
        folder: the run folder.
        sheet: what to write.
        curves: probes and losses of the trained variants.
        command: what reproduces the run.
        record: JSON-able provenance, shown as it is.
        expect: the recipe's expected ranges.
        printed: published results to hold the rows against.
    """
    expect = expect or {}
    drawings = plots.drawings(sheet, curves)
    _write_plots(folder / "plots", drawings)
    gaps, planes = stability.gaps(sheet, curves), frontier.frontiers(sheet)
    prepared = folder / "preparation.json"
    tables = preparation_table.tables(storage.read_json(prepared)) if prepared.is_file() else []
    against = [*guard_table.tables(sheet), *(published.tables(sheet, printed) if printed else [])]
    page = html(sheet, drawings, gaps, command, record, expect, [*tables, *against])
    storage.write_text(folder / "report.html", page)
    storage.write_text(folder / "sheet.md", markdown(sheet, gaps, command, expect, against))
    _write_record(folder / "frontier.json", planes[0].to_json() if planes else None)
    _write_record(folder / "stability.json", stability.to_json(gaps) if gaps else None)
    _write_record(folder / "sheet.json", sheet.to_json())


def _write_record(path: Path, record: dict[str, Any] | None) -> None:
    """Write a record; where there is none, remove what an earlier sheet of the folder said."""
    if record is None:
        path.unlink(missing_ok=True)
    else:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        storage.write_text(path, text + "\n")


def _write_plots(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Draw into a folder beside, then put it in the place of the old one."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir()
    try:
        for drawing in drawings:
            (partial / f"{drawing.name}.svg").write_text(drawing.svg, encoding="utf-8")
            (partial / f"{drawing.name}.png").write_bytes(drawing.png())
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def html(
    sheet: Sheet,
    drawings: Sequence[Drawing],
    gaps: Sequence[Stability],
    command: str,
    record: Mapping[str, Any],
    expect: Mapping[str, tuple[float, float]],
    more: Sequence[preparation_table.Table] = (),
) -> str:
    """The page: no scripts, nothing fetched, every text escaped."""
    source = files("workbench.sheet")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tight"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    template = environment.from_string(source.joinpath("report.html").read_text(encoding="utf-8"))
    columns = table.columns(sheet)
    return template.render(
        sheet=sheet,
        style=Markup(source.joinpath("report.css").read_text(encoding="utf-8")),
        answers=findings.answers(sheet),
        columns=columns,
        lines=[(row, [_slot(sheet, row, column) for column in columns]) for row in sheet.rows],
        sections=[
            *_sections(drawings, _tables(sheet, gaps)),
            *(Section(each.title, each.subtitle, [], each.lines, each.legend) for each in more),
        ],
        seeded=sheet.seeded,
        families=_families(sheet),
        marks=table.MARKS,
        legend=table.legend(sheet),
        costs=table.costs(sheet),
        expectations=_expectations(sheet, expect),
        notes=list(_notes(sheet, columns)),
        margin=compare.MARGIN,
        resamples=f"{statistics.RESAMPLES:,}",
        status_rule=status.RULE,
        words=wording,
        command=command,
        facts=_facts(record),
        record=json.dumps(record, indent=2, ensure_ascii=False, default=str),
    )


@dataclass(frozen=True)
class Slot:
    """A cell of the page: the score and where it and its interval lie in its column, in percent."""

    cell: Cell
    at: float
    low: float
    high: float


def _slot(sheet: Sheet, row: Row, column: Column) -> Slot | None:
    cell = table.cell(sheet, row, column)
    if cell is None:
        return None
    scale = _scale(sheet, column)
    value, interval = cell.metric.value, cell.metric.ci
    if value is None or scale is None:
        return Slot(cell, -1, -1, -1)
    low, high = (interval.low, interval.high) if interval else (value, value)
    return Slot(cell, *(round(100 * scale(number), 2) for number in (value, low, high)))


def _scale(sheet: Sheet, column: Column) -> Callable[[float], float] | None:
    """Where a number lies between the ends of its column, 0 to 1; shares lie where they are."""
    ends = []
    for row in sheet.rows:
        if (cell := table.cell(sheet, row, column)) and cell.metric.value is not None:
            interval = cell.metric.ci
            ends += [cell.metric.value] + ([interval.low, interval.high] if interval else [])
    if not ends:
        return None
    low, high = (0.0, 1.0) if column.unit == "share" else (min(ends), max(ends))
    if column.unit != "share" and low > 0 and high > 10 * low:
        return lambda value: math.log(value / low) / math.log(high / low)
    return lambda value: (value - low) / (high - low) if high > low else 0.5


_SECTIONS = {
    "training": (
        "Learning and forgetting, over training",
        "Small probes of the battery along the way; the sheet above holds the full measurements.",
    ),
    "frontier": ("What was gained against what was kept", "The best rows lie up and to the right."),
    "safety": (
        "Safety, from the first row to the last bit",
        "Attacks, and beside them what a model must not pay for withstanding them.",
    ),
    "bits": (
        "What bits buy",
        "One line a method; the grey band is the model before quantization. Bars are 95 % intervals.",
    ),
}


@dataclass(frozen=True)
class Section:
    """A part of the page: figures, and a table that goes with them."""

    title: str
    subtitle: str
    figures: list[tuple[Drawing, Markup]]
    lines: list[list[str]]  # headings first; empty where there is no table
    legend: str


def _sections(
    drawings: Sequence[Drawing], tables: Mapping[str, tuple[list[list[str]], str]]
) -> list[Section]:
    found = []
    for name, (title, subtitle) in _SECTIONS.items():
        figures = [(drawing, inline(drawing)) for drawing in drawings if drawing.section == name]
        columns, legend = tables.get(name, ([], ""))
        if figures or columns:
            lines = [list(line) for line in zip(*columns, strict=True)]
            found.append(Section(title, subtitle, figures, lines, legend))
    return found


def _tables(sheet: Sheet, gaps: Sequence[Stability]) -> dict[str, tuple[list[list[str]], str]]:
    """Columns and legend of the tables that stand in sections of figures."""
    tables = {"training": (race_table.gaps(sheet, gaps), race_table.GAPS_LEGEND)}
    if ledger.rows(sheet):
        tables["safety"] = (ledger.whole(sheet), f"{ledger.LEGEND} {ledger.CHANGES_LEGEND}")
    planes = frontier.frontiers(sheet)
    if planes and frontier.is_race(sheet):
        tables["frontier"] = (race_table.methods(sheet, planes[0]), race_table.METHODS_LEGEND)
    return tables


def inline(drawing: Drawing) -> Markup:
    """The figure's SVG for a page: ids of its own, colours and font of the page, so that dark mode works."""
    text = drawing.svg[drawing.svg.index("<svg") :].replace("#ffffff", "none")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", drawing.name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    for index, colour in enumerate((canvas.INK, canvas.FAINT, *canvas.COLOURS)):
        text = text.replace(colour, f"var(--p{index})")
    return Markup(text)  # matplotlib escapes its texts


def _families(sheet: Sheet) -> list[tuple[Row, list[compare.Comparison]]]:
    """Each row with its comparisons."""
    grouped = [(row, [c for c in sheet.comparisons if c.variant == row.variant]) for row in sheet.rows]
    return [(row, found) for row, found in grouped if found]


def _expectations(
    sheet: Sheet, expect: Mapping[str, tuple[float, float]]
) -> list[tuple[str, str, str, str | None]]:
    """Name, range, score and failure of each expected range."""
    listed = []
    for name, (low, high) in expect.items():
        metric = expected_metric(sheet, name)
        found = "" if metric is None else "not finite" if metric.value is None else f"{metric.value:.6g}"
        failures = check_expectations(sheet, {name: (low, high)})
        listed.append((name, f"{low:g} to {high:g}", found, failures[0] if failures else None))
    return listed


def _notes(sheet: Sheet, columns: Sequence[Column]) -> Iterator[str]:
    """What a careful reader must know about these numbers."""
    for column in columns:
        counts = [found.metric.n for row in sheet.rows if (found := table.cell(sheet, row, column))]
        if column.unit != "share" and min(counts) < _FEW_ITEMS:
            yield f"{column.metric} has {min(counts)} items; the bootstrap of so few is too narrow."
        if re.search(r"\blimit (?!none)", column.protocol):
            yield f"{column.metric} was measured on a limited number of items, not on the whole task."
    if len({column.metric for column in columns}) < len(columns):
        yield "Some metrics were measured under several protocols; each has its own column."


def _facts(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The record flattened to names and texts."""
    facts: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            facts += _facts(value, f"{name}.")
        elif value not in (None, "", []):
            facts.append((name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return facts
