"""The sheet as a table, once for the terminal, for Markdown and for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.sheet import safety, wording
from workbench.sheet.compare import Verdict
from workbench.sheet.sheet import Metric, Row, Sheet
from workbench.sheet.statistics import Interval
from workbench.sheet.wording import Unit

MARKS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "equivalent": "=", "no evidence": "?"}
SEEDS = " It is of the pooled items of all seeds, and does not tell how another seed would train."
LONGEST = 80  # characters of a setting that are shown whole
LEGEND = "Against the row it was made from: ▲ better, ▼ worse, = equivalent, ? no evidence of a difference."


@dataclass(frozen=True)
class Column:
    """One metric under one protocol: numbers of different protocols never share a column."""

    metric: str
    protocol: str
    unit: Unit
    higher_is_better: bool

    brief: str  # heading where room is scarce, such as "new facts %" or "base ppl"

    @property
    def heading(self) -> tuple[str, str]:
        """What is measured and how, on two short lines."""
        percent = " %" if self.unit == "share" else ""
        return wording.subject(self.metric), wording.noun(self.metric) + percent


@dataclass(frozen=True)
class Cell:
    """One score, ready to draw."""

    metric: Metric
    unit: Unit
    verdict: Verdict | None
    sentence: str

    @property
    def value(self) -> str:
        """The score alone."""
        return wording.amount(self.metric.value, self.unit)

    @property
    def interval(self) -> str:
        """Both ends of the interval."""
        if self.metric.ci is None:
            return "interval unknown"
        return _ends(self.metric.ci, self.unit)

    @property
    def seeds(self) -> str:
        """Both ends of the interval of the mean over seeds; empty where there is one seed."""
        if self.metric.seeds_ci is None:
            return ""
        return f"seeds {_ends(self.metric.seeds_ci, self.unit)}"

    @property
    def mark(self) -> str:
        """The verdict against the parent as one character."""
        return MARKS[self.verdict] if self.verdict else ""

    @property
    def short(self) -> str:
        """The score with the larger half of its interval and the mark."""
        if self.metric.ci is None or self.metric.value is None:
            return f"{self.value} {self.mark}".strip()
        half = max(self.metric.ci.high - self.metric.value, self.metric.value - self.metric.ci.low)
        return f"{self.value} ±{wording.amount(half, self.unit, like=self.metric.value)} {self.mark}".strip()


def _ends(interval: Interval, unit: Unit) -> str:
    clip = (0.0, 1.0) if unit == "share" else (-math.inf, math.inf)
    low, high = (wording.amount(min(max(end, clip[0]), clip[1]), unit) for end in vars(interval).values())
    return f"{low} to {high}"


def columns(sheet: Sheet) -> list[Column]:
    """One column for each metric and protocol, in order of first appearance; none for details."""
    found: dict[tuple[str, str], Metric] = {}
    for row in sheet.rows:
        for key, metric in row.metrics.items():
            if not safety.is_detail(key):
                found.setdefault((key, metric.protocol), metric)
    subjects = [wording.subject(key) for key in dict.fromkeys(key for key, _ in found)]
    keys = [key for key, _ in found]
    drawn: list[Column] = []
    for (key, protocol), metric in found.items():
        unit = sheet.unit(key)
        brief = _brief(key, unit, alone=subjects.count(wording.subject(key)) == 1)
        version = sum(column.metric == key for column in drawn) + 1
        brief += f" [{version}]" if keys.count(key) > 1 else ""
        drawn.append(Column(key, protocol, unit, metric.higher_is_better, brief))
    return drawn


def _brief(metric: str, unit: Unit, alone: bool) -> str:
    if brief := safety.brief(metric):
        return f"{brief} %"
    aspect, task, name = wording.split(metric)
    if aspect == "language" or name in wording.OF_TEXTS:
        return f"{task} { {'perplexity': 'ppl', 'bits_per_byte': 'b/byte'}.get(name, name) }"
    return wording.subject(metric) + ("" if alone else f" {name}") + (" %" if unit == "share" else "")


def cell(sheet: Sheet, row: Row, column: Column) -> Cell | None:
    """The row's score in a column; None where it was not measured."""
    metric = row.metrics.get(column.metric)
    if metric is None or metric.protocol != column.protocol:
        return None
    found = sheet.against(row.variant, row.parent).get(column.metric)
    verdict, sentence = (found.verdict, found.sentence) if found else (None, "")
    return Cell(metric, column.unit, verdict, sentence)


def compact(sheet: Sheet, width: int) -> list[list[list[str]]]:
    """The table as text, cut into tables of at most `width` characters, each with its line of headings.

    Every table begins with the variant; the first one goes on with status and bits. What judged answers say
    is left to the ledger, so that no cut parts attacks from over-refusal.
    """
    rows = sheet.rows
    fields = [
        ["status", *(row.status for row in rows)],
        ["bits", *(wording.bits(row.real_bits) for row in rows)],
    ]
    # Bits per byte tell little beyond the perplexity of the same text, so they come last.
    keys = sheet.metric_keys()
    shown = [column for column in columns(sheet) if not safety.of_answers(column.metric)]
    for column in sorted(shown, key=lambda column: wording.repeats(column.metric, keys)):
        cells = (cell(sheet, row, column) for row in rows)
        fields.append([column.brief, *(found.short if found else "" for found in cells)])
    fields.append(["disk", *(wording.size(row.disk_bytes) for row in rows)])
    speeds = ("" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}" for row in rows)
    fields.append(["tokens/s", *speeds])
    label = ["row", *(row.variant for row in rows)]
    filled = [field for field in fields if any(field[1:])]
    return cut(label, filled, width)


def cut(label: list[str], fields: Sequence[list[str]], width: int) -> list[list[list[str]]]:
    """Share columns out over tables of lines; each begins with the column `label`.

    A column takes its longest text, a space at each side and a rule.
    """
    tables: list[list[list[str]]] = []
    room = 0
    for field in fields:
        needed = 3 + max(map(len, field))
        if needed > room or not tables:
            tables.append([label])
            room = width - 4 - max(map(len, label))
        tables[-1].append(field)
        room -= needed
    return [[list(line) for line in zip(*table, strict=True)] for table in tables]


def legend(sheet: Sheet) -> list[str]:
    """What the brief headings stand for, and on how many items."""
    lines = []
    for column in columns(sheet):
        counts = [row.metrics[column.metric].n for row in sheet.rows if cell(sheet, row, column)]
        n = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
        direction = "higher" if column.higher_is_better else "lower"
        lines.append(f"{column.brief}: {column.metric}, n = {n}, {direction} is better")
    return lines


def costs(sheet: Sheet) -> list[tuple[str, list[str]]]:
    """What each row took to make and takes to keep."""
    return [
        (
            row.variant,
            [
                wording.duration(row.seconds),
                wording.size(row.peak_memory_bytes),
                wording.size(row.disk_bytes),
                wording.bits(row.real_bits),
                "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
                _settings(row.settings),
            ],
        )
        for row in sheet.rows
    ]


def _settings(settings: Mapping[str, object]) -> str:
    """Settings in a line; long values, such as the digests of what was made before, by their beginning."""
    said = []
    for key, value in settings.items():
        text = f"({_settings(value)})" if isinstance(value, dict) else str(value)
        said.append(f"{key} {text if isinstance(value, dict) or len(text) <= LONGEST else text[:12] + '…'}")
    return ", ".join(said)
