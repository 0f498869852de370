"""Guards against labels, in small tables: how well each judges, and what it calls unsafe of each category."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.sheet import safety, wording
from workbench.sheet.preparation_table import Table
from workbench.sheet.sheet import Row, Sheet

_MEASURES = ("f1", "precision", "recall", "false_alarms", "auprc", "missing")
_KINDS = dict(zip(safety.MODERATION, ("requests", "answers"), strict=True))
_BY_CATEGORY = {"flagged": "judged unsafe", "false_alarms": "false alarms", "auprc": "AUPRC"}
LEGEND = (
    "In percent, ± the larger half of the 95 % interval; texts of one base question are one cluster. Unsafe"
    " is the positive class. False alarms: benign texts that are judged unsafe. AUPRC: average precision over"
    " all thresholds; a guard that guesses has the share of unsafe texts. Missing: texts without a verdict,"
    " which count in no other column."
)
CATEGORY_LEGEND = (
    "Judged unsafe: of the unsafe texts of a category. False alarms: of the benign texts about it. AUPRC: of"
    " the guard's score of this category alone, against all other texts (1-vs-all); only of categories that"
    " the guard knows by the name of the label."
)


def tables(sheet: Sheet) -> list[Table]:
    """The tables of a sheet that scores guards; none of any other."""
    rows = [row for row in sheet.rows if any(map(safety.of_guard, row.metrics))]
    made = []
    for task, kind in _KINDS.items():
        keys = [f"{task}.{name}" for name in _MEASURES if any(f"{task}.{name}" in r.metrics for r in rows)]
        if not keys:
            continue
        lines = [["guard", *map(wording.noun, keys)]]
        lines += [[row.variant, *(_cell(row, key) for key in keys)] for row in rows]
        made.append(Table(f"Guards against labels: {kind}", "How well each judges.", lines, LEGEND))
        if len(lines := _by_category(sheet, rows, task)) > 1:
            title = f"Guards by category: {kind}"
            made.append(Table(title, "What each calls unsafe.", lines, CATEGORY_LEGEND))
    return made


def _by_category(sheet: Sheet, rows: Sequence[Row], task: str) -> list[list[str]]:
    """A line for each category and measure, a column a guard."""
    lines = [["category", "measure", *(row.variant for row in rows)]]
    for measure, words in _BY_CATEGORY.items():
        begun = f"{task}_{measure}."
        for key in (key for key in sheet.metric_keys() if key.startswith(begun)):
            name = key.removeprefix(begun).replace("_", " ")
            lines.append([name, words, *(_cell(row, key) for row in rows)])
    return [lines[0], *sorted(lines[1:], key=lambda line: line[0])]


def _cell(row: Row, key: str) -> str:
    if (metric := row.metrics.get(key)) is None:
        return ""
    if metric.ci is None or metric.value is None:
        return wording.amount(metric.value, "share")
    half = max(metric.ci.high - metric.value, metric.value - metric.ci.low)
    return f"{wording.amount(metric.value, 'share')} ±{wording.amount(half, 'share')}"
