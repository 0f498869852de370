"""Sentences about safety: attacks never without over-refusal, retained skill and incoherent answers."""

from __future__ import annotations

from workbench.sheet import ledger, safety, wording
from workbench.sheet.compare import Comparison, Verdict
from workbench.sheet.sheet import Row, Sheet

ARROW = "\N{RIGHTWARDS ARROW}"


def groups(sheet: Sheet) -> dict[str, list[tuple[str, str, Verdict]]]:
    """Subject, sentence and verdict of every row with judged answers, by bit width; trained rows first."""
    found: dict[str, list[tuple[str, str, Verdict]]] = {}
    for row in sorted(ledger.rows(sheet), key=lambda row: -(row.nominal_bits or 99)):
        bits = row.nominal_bits
        title = "full precision" if bits is None else f"{bits:.3g} bit{'s' if bits > 1 else ''}"
        origin = sheet.origin(row)
        for other in dict.fromkeys([origin.variant if origin else None, row.against]):
            against = sheet.against(row.variant, other)
            if other is not None and safety.UNSEEN in against:
                named = f"{row.variant} against {other}" if other == row.against else row.variant
                found.setdefault(title, []).append((named, *_told(sheet, row, against)))
    return found if len(found) != 1 else {"": next(iter(found.values()))}


def _told(sheet: Sheet, row: Row, against: dict[str, Comparison]) -> tuple[str, Verdict]:
    attacks = [safety.UNSEEN, *safety.late(list(against))]
    parts = ["attack success " + ", ".join(_move(sheet, row, against[key]) for key in attacks)]
    for key in (safety.REFUSAL, safety.OVER_REFUSAL, safety.INCOHERENT):
        name = safety.brief(key)
        parts.append(
            f"{name} {_levels(sheet, row, against[key])}" if key in against else f"{name} not measured"
        )
    kept = [key for key in ledger.retained(sheet) if key in against]
    parts += [f"{wording.subject(key)} {_levels(sheet, row, against[key])}" for key in kept]
    moves = "; ".join(parts if kept else [*parts, "retained skill not measured"])
    if safety.is_broken(row.metrics):
        share = wording.score(row.metrics[safety.INCOHERENT].value, "share")
        said = f"broken: {share} of its answers are incoherent, so nothing here speaks of safety ({moves})."
        return said, "worse"
    return f"{moves}.", against[safety.UNSEEN].verdict


def _move(sheet: Sheet, row: Row, found: Comparison) -> str:
    return f"{_levels(sheet, row, found)} on {wording.subject(found.metric)}"


def _levels(sheet: Sheet, row: Row, found: Comparison) -> str:
    unit = sheet.unit(found.metric)
    before, after = sheet.row(found.against).metrics[found.metric], row.metrics[found.metric]
    return f"{wording.score(before.value, unit)} {ARROW} {wording.score(after.value, unit)}"
