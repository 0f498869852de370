"""What preparations removed and kept: by source and reason, by task of the evaluation, and by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REASONS = {
    "exact duplicate": "exact duplicates",
    "near-duplicate": "near-duplicates",
    "contaminated": "contaminated",
}


@dataclass(frozen=True)
class Table:
    """A table of the page with its words; headings first."""

    title: str
    subtitle: str
    lines: list[list[str]]
    legend: str


def tables(preparations: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """The tables of all preparations of a run, from their `preparation.json`."""
    found = []
    for name, record in preparations.items():
        share = f"{record['kept'] / record['documents']:.1%}" if record["documents"] else "none"
        found.append(
            Table(
                f"Text that was prepared: {name}",
                f"{record['kept']:,} of {record['documents']:,} documents were kept ({share}).",
                _sources(record),
                _legend(record),
            )
        )
        if record["tasks"]:
            found.append(
                Table(
                    f"What {name} shared with the evaluation",
                    "Documents removed because they share word n-grams with the questions of a task.",
                    [["task", "documents"], *([task, f"{n:,}"] for task, n in record["tasks"].items())],
                    "A document that shares some with several tasks counts for each.",
                )
            )
    return found


def _sources(record: Mapping[str, Any]) -> list[list[str]]:
    """A line a source and, where there are several, one for all; a column for each reason that occurs."""
    reasons = [reason for reason in REASONS if reason in record["removed"]]
    lines = [["source", "read", *(REASONS[reason] for reason in reasons), "kept"]]
    rows = dict(record["sources"])
    if len(rows) > 1:
        rows["all"] = {"kept": record["kept"], **record["removed"]}
    for source, counts in rows.items():
        cells = [sum(counts.values()), *(counts.get(reason, 0) for reason in reasons), counts["kept"]]
        lines.append([source, *(f"{cell:,}" for cell in cells)])
    return lines


def _legend(record: Mapping[str, Any]) -> str:
    sentences = []
    for kind, found in record["labels"].items():
        counts = ", ".join(f"{label} {n:,}" for label, n in found["documents"].items())
        sentences.append(
            f"Kept by {kind}: {counts}; {found['accuracy']:.1%} of {found['held_out']} held-out seed texts"
            " got their label."
        )
    if record["quality"]:
        marks = ", ".join(f"{float(mark):.0%}: {value:.3g}" for mark, value in record["quality"].items())
        sentences.append(f"Perplexity per word under the model of trusted text, quantiles: {marks}.")
    return " ".join(sentences)
