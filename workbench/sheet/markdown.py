"""The sheet as Markdown, for a README, and as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.sheet import findings, frontier, ledger, preparation_table, race_table, table
from workbench.sheet.sheet import Sheet, check_expectations
from workbench.sheet.stability import Stability
from workbench.sheet.status import Status

WIDTH = 100
SPREAD = "± is the larger half of the 95 % interval."
_STATUS_STYLE: dict[Status, str] = {"sound": "", "degraded": "yellow", "collapsed": "bold red"}
_MARK_STYLE = {"▲": "green", "▼": "red", "=": "cyan", "?": "dim"}


def markdown(
    sheet: Sheet,
    gaps: Sequence[Stability],
    command: str,
    expect: Mapping[str, tuple[float, float]],
    against: Sequence[preparation_table.Table] = (),
) -> str:
    """The findings, the table, and what its signs mean; its lines are at most 100 wide."""
    parts = [f"# {sheet.recipe}"]
    for answer in findings.answers(sheet):
        lines = [f"- **{found.subject}**: {found.sentence}" for found in answer.findings]
        parts.append("\n".join([f"## {answer.question}", "", *lines]))
    parts.append("## Sheet")
    parts += [_aligned(rows) for rows in table.compact(sheet, WIDTH)]
    parts.append(f"{table.LEGEND} {SPREAD}{table.SEEDS if sheet.seeded else ''}")
    parts.append("\n".join(f"- {_escape(line)}" for line in table.legend(sheet)))
    parts += _ledger(sheet)
    parts += _race(sheet, gaps)
    for each in against:
        parts += [f"## {each.title}", each.subtitle, _aligned(each.lines), each.legend]
    warnings = [f"- **{row.variant}**: {_escape(text)}" for row in sheet.rows for text in row.warnings]
    if warnings:
        parts.append("\n".join(["## Warnings", "", *warnings]))
    if expect:
        failures = [f"- {_escape(text)}" for text in check_expectations(sheet, expect)]
        lines = failures or [f"All {len(expect)} expected ranges are met."]
        parts.append("\n".join(["## Expectations", "", *lines]))
    parts.append(f"Made by:\n\n    {command}")
    return "\n\n".join(parts) + "\n"


def _race(sheet: Sheet, gaps: Sequence[Stability]) -> list[str]:
    """The table of methods where methods compete, and the gaps of training where there are any."""
    parts: list[str] = []
    planes = frontier.frontiers(sheet)
    if planes and frontier.is_race(sheet):
        parts += ["## Methods", *_columns(race_table.methods(sheet, planes[0])), race_table.METHODS_LEGEND]
    if columns := race_table.gaps(sheet, gaps):
        parts += ["## Stability gaps", *_columns(columns), race_table.GAPS_LEGEND]
    return parts


def _ledger(sheet: Sheet) -> list[str]:
    """The tables of safety, uncut: what they hold must stand side by side."""
    if not ledger.rows(sheet):
        return []
    parts = ["## Safety", _aligned(_lines(ledger.levels(sheet))), ledger.LEGEND]
    if columns := ledger.changes(sheet):
        parts += [_aligned(_lines(columns)), ledger.CHANGES_LEGEND]
    return parts


def _lines(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(line) for line in zip(*columns, strict=True)]


def _columns(columns: list[list[str]]) -> list[str]:
    return [_aligned(rows) for rows in table.cut(columns[0], columns[1:], WIDTH)]


def _aligned(rows: list[list[str]]) -> str:
    """A Markdown table whose source is as legible as its rendering."""
    rows = [[_escape(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [" | ".join(map(str.ljust, row, widths)) for row in (rows[0], rule, *rows[1:])]
    return "\n".join(f"| {line} |" for line in lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def render(sheet: Sheet, console: Console) -> None:
    """Print the findings and the table; wide tables are cut to the terminal's width."""
    for answer in findings.answers(sheet):
        console.print(Text(answer.question, style="bold"))
        lines = Table.grid(padding=(0, 1), pad_edge=True)
        for found in answer.findings:
            mark = table.MARKS[found.verdict]
            line = Text.assemble((found.subject, "bold"), f"  {found.sentence}")
            lines.add_row(Text(mark, _MARK_STYLE[mark]), line)
        console.print(lines, "")
    for index, rows in enumerate(table.compact(sheet, console.width - 2)):
        console.print(_drawn(rows, Text(sheet.recipe, style="bold") if index == 0 else None))
    console.print(Text(f"{table.LEGEND} {SPREAD}", style="dim"))
    if ledger.rows(sheet):
        console.print(_drawn(_lines(ledger.levels(sheet, console.width - 2)), Text("Safety", style="bold")))
        console.print(Text(ledger.LEGEND, style="dim"))
    for row in sheet.rows:
        for text in row.warnings:
            console.print(Text.assemble(("warning ", "yellow"), (row.variant, "bold"), f": {text}"))


def _drawn(rows: list[list[str]], title: Text | None) -> Table:
    drawn = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in rows[0]:
        drawn.add_column(Text(heading), no_wrap=True)
    for row in rows[1:]:
        drawn.add_row(*(_styled(text) for text in row))
    return drawn


def _styled(text: str) -> Text:
    style = _MARK_STYLE.get(text[-1:], "") if " " in text else dict(_STATUS_STYLE).get(text, "")  # type: ignore[call-overload]
    return Text(text, style=style)
