"""The headline: what was learnt, what was forgotten, what each bit width costs, in sentences.

Every sentence is made from the comparisons, or from the frontier; a question to which no row speaks is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.sheet import safety, safety_findings, wording
from workbench.sheet.compare import Comparison, Verdict
from workbench.sheet.frontier import Frontier, frontiers, is_race
from workbench.sheet.sheet import Row, Sheet

_MANY = 6  # rows from which on a race is told by its skills alone
_RIVALS = 4  # rows of one width up to which every pair of methods is told
_NEARLY_FULL = 0.85  # share of full's gain from which on a method counts as having learnt the skill
_MISSED = {"worse": "worse in", "equivalent": "unchanged in", "no evidence": "no evidence of change in"}
_COMPARED: dict[Verdict, str] = {
    "better": "better in",
    "worse": "worse in",
    "equivalent": "equivalent in",
    "no evidence": "no evidence of a difference in",
}
_KEPT = {"better": "even better in", "equivalent": "kept", "no evidence": "no loss shown in"}
_UNHARMED = {"better": "better in", "equivalent": "equivalent in", "no evidence": "no loss shown in"}


@dataclass(frozen=True)
class Finding:
    """One sentence about one subject, and the verdict that colours it."""

    subject: str
    sentence: str
    verdict: Verdict


@dataclass(frozen=True)
class Answer:
    """A question and what was found, in titled groups; the title of a single group is empty."""

    question: str
    groups: dict[str, list[Finding]]

    @property
    def findings(self) -> list[Finding]:
        """All findings in order."""
        return [finding for group in self.groups.values() for finding in group]


def answers(sheet: Sheet) -> list[Answer]:
    """All questions that the sheet can answer, in the order of a run."""
    planes = frontiers(sheet)
    best = {point.variant for plane in planes for point in plane.rows if point.on_frontier}
    made = [row for row in sheet.rows if row.parent is not None and row.nominal_bits is None]
    trained = [row for row in made if row.method != "merge" or row.variant in best]
    widths = sorted({row.nominal_bits for row in sheet.rows if row.nominal_bits is not None}, reverse=True)
    every = [
        Answer("What was learnt", {"": [found for row in trained for found in _learnt(sheet, row)]}),
        Answer("What was forgotten", {"": [found for row in trained for found in _forgotten(sheet, row)]}),
        Answer("What became of safety", _safety(sheet)),
        Answer("One row against another", {"": [found for row in made for found in _named(sheet, row)]}),
        Answer("The frontier", {"": _frontier(sheet, planes[0]) if planes and is_race(sheet) else []}),
        Answer(
            "What each bit width costs",
            {f"{width:.3g} bit{'s' if width > 1 else ''}": _cost(sheet, width) for width in widths},
        ),
    ]
    return [answer for answer in every if answer.findings]


def _safety(sheet: Sheet) -> dict[str, list[Finding]]:
    """What judged answers say; everywhere else they are left out, as attacks need all of it beside them."""
    return {
        title: [Finding(*told) for told in group] for title, group in safety_findings.groups(sheet).items()
    }


def _against(sheet: Sheet, row: Row, other: str | None) -> list[Comparison]:
    """Comparisons with another row; bits per byte only where the same text has no perplexity."""
    found = sheet.against(row.variant, other)
    return [
        comparison
        for metric, comparison in found.items()
        if not wording.repeats(metric, found) and not safety.of_answers(metric)
        if not safety.is_detail(metric)
    ]


def _since_training(sheet: Sheet, row: Row) -> list[Comparison]:
    """What changed since the row's origin; in a race only the skills, as it has many rows to tell of."""
    origin = sheet.origin(row)
    found = _against(sheet, row, origin.variant if origin else row.parent)
    skills = [c for c in found if not c.metric.startswith("language.")]
    return skills if skills and is_race(sheet) and len(sheet.rows) > _MANY else found


def _named(sheet: Sheet, row: Row) -> list[Finding]:
    """What the recipe wanted compared, a sentence a verdict."""
    found = _against(sheet, row, row.against) if row.against else []
    findings = []
    for verdict, phrase in _COMPARED.items():
        some = [c for c in found if c.verdict == verdict]
        if some:
            subject = f"{row.variant} against {row.against}"
            findings.append(Finding(subject, f"{phrase} {_moves(sheet, some)}.", verdict))
    return findings


def _frontier(sheet: Sheet, plane: Frontier) -> list[Finding]:
    """Which rows no other beats, and which keeps most of those that learn nearly as much as full."""
    best = wording.listed([point.variant for point in plane.rows if point.on_frontier])
    both = wording.listed([wording.describe(plane.retained), wording.describe(plane.new)])
    findings = [Finding("No row beats", f"{best} in both {both}.", "better")]
    apt = [
        (point.kept, point.of_full_gain, point.variant)
        for point in plane.rows
        if point.kept is not None and point.of_full_gain is not None and point.of_full_gain >= _NEARLY_FULL
    ]
    if apt:
        kept, gain, variant = max(apt)
        sentence = (
            f"keeps most of those with at least {100 * _NEARLY_FULL:.0f} % of full's gain in"
            f" {wording.subject(plane.new)}: {100 * kept:.0f} % of {wording.subject(plane.retained)}"
            f" at {100 * gain:.0f} % of the gain."
        )
        findings.append(Finding(variant, sentence, "better"))
    return findings


def _learnt(sheet: Sheet, row: Row) -> list[Finding]:
    """What got better, and every new skill that did not."""
    found = _since_training(sheet, row)
    better = [c for c in found if c.verdict == "better"]
    missed = [c for c in found if c.metric.startswith("new.") and c.verdict != "better"]
    findings = []
    if better:
        findings.append(Finding(row.variant, f"{_moves(sheet, better)}.", "better"))
    for verdict, phrase in _MISSED.items():
        some = [c for c in missed if c.verdict == verdict]
        if some:
            findings.append(Finding(row.variant, f"{phrase} {_moves(sheet, some)}.", some[0].verdict))
    return findings


def _forgotten(sheet: Sheet, row: Row) -> list[Finding]:
    """What got worse, and every retained skill that did not."""
    found = [c for c in _since_training(sheet, row) if not c.metric.startswith("new.")]
    worse = [c for c in found if c.verdict == "worse"]
    kept = [c for c in found if c.metric.startswith("retained.") and c.verdict != "worse"]
    findings = []
    if worse:
        findings.append(Finding(row.variant, f"{_moves(sheet, worse, kept_share=True)}.", "worse"))
    for verdict, phrase in _KEPT.items():
        some = [c for c in kept if c.verdict == verdict]
        if some:
            findings.append(Finding(row.variant, f"{phrase} {_moves(sheet, some)}.", some[0].verdict))
    return findings


def _moves(sheet: Sheet, comparisons: Sequence[Comparison], kept_share: bool = False) -> str:
    """Each score before and after, such as "accuracy on new facts 26.0 % to 93.0 % (+67.0 points)"."""
    return "; ".join(_move(sheet, comparison, kept_share) for comparison in comparisons)


def _move(sheet: Sheet, found: Comparison, kept_share: bool) -> str:
    unit = sheet.unit(found.metric)
    value = sheet.row(found.variant).metrics[found.metric].value
    before = sheet.row(found.against).metrics[found.metric].value
    text = (
        f"{wording.describe(found.metric)} {wording.score(before, unit)} \N{RIGHTWARDS ARROW}"
        f" {wording.score(value, unit)} ({_shift(sheet, found)}"
    )
    if kept_share and unit == "share" and before and value and found.metric.startswith("retained."):
        text += f"; {100 * value / before:.0f} % kept"
    return f"{text})"


def _shift(sheet: Sheet, found: Comparison) -> str:
    unit = sheet.unit(found.metric)
    before = sheet.row(found.against).metrics[found.metric].value
    return wording.change(wording.shift(found.difference, before or 0.0, unit), unit)


def _cost(sheet: Sheet, width: float) -> list[Finding]:
    """What each method loses at one bit width, and which method is ahead."""
    rows = [row for row in sheet.rows if row.nominal_bits == width]
    findings = [found for row in rows if (found := _loss(sheet, row))]
    for place, later in enumerate(rows):
        # Of many methods each meets the first alone; the sheet holds all pairs.
        for earlier in rows[:place] if len(rows) <= _RIVALS else rows[: min(place, 1)]:
            findings += _duel(sheet, later, earlier)
    return findings


def _loss(sheet: Sheet, row: Row) -> Finding | None:
    """What quantization took from one row."""
    found = _against(sheet, row, row.parent)
    if not found:
        return None
    subject = f"{row.variant} ({wording.bits(row.real_bits)} bits)" if row.real_bits else row.variant
    worse = [c for c in found if c.verdict == "worse"]
    if worse:
        lost = "; ".join(f"{wording.describe(c.metric)} {_shift(sheet, c)}" for c in worse)
        fallen = "collapsed: " if row.status == "collapsed" else ""
        rest = f"; no loss shown on the other {len(found) - len(worse)}" if len(worse) < len(found) else ""
        return Finding(subject, f"{fallen}{lost}{rest}.", "worse")
    parts = []
    for verdict, phrase in _UNHARMED.items():
        some = [c for c in found if c.verdict == verdict]
        if some:
            parts.append(f"{phrase} {wording.listed([wording.describe(c.metric) for c in some])}")
    shown = all(c.verdict != "no evidence" for c in found)
    return Finding(subject, f"{'; '.join(parts)}.", "equivalent" if shown else "no evidence")


def _duel(sheet: Sheet, later: Row, earlier: Row) -> list[Finding]:
    """Which of two methods is ahead at equal bits, when one is anywhere."""
    found = _against(sheet, later, earlier.variant)
    if later.parent != earlier.parent or not found:
        return []
    better = sum(c.verdict == "better" for c in found)
    worse = sum(c.verdict == "worse" for c in found)
    if not better and not worse:
        return []
    parts = [f"better on {better}"] * bool(better) + [f"worse on {worse}"] * bool(worse)
    verdict: Verdict = "no evidence" if better and worse else "better" if better else "worse"
    subject = f"{later.variant} against {earlier.variant}"
    return [Finding(subject, f"{' and '.join(parts)} of {len(found)} metrics.", verdict)]
