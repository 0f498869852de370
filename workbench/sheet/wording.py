"""How metrics and numbers are said, the same in every drawing of the sheet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from workbench.sheet import safety

Unit = Literal["share", "bits", "ratio"]  # accuracy and the like; bits per byte; perplexity and all others

OF_TEXTS = ("perplexity", "bits_per_byte")
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
_NOUNS = {"acc": "accuracy", "acc_norm": "length-normalised accuracy", "bits_per_byte": "bits per byte"}


def split(metric: str) -> tuple[str, str, str]:
    """Part "<aspect>.<task>.<metric>"; the task may hold dots."""
    aspect, rest = metric.split(".", 1)
    task, name = rest.rsplit(".", 1)
    return aspect, task, name


def noun(metric: str) -> str:
    """What is measured, such as "accuracy"."""
    if said := safety.said(metric):
        return said[0]
    name = split(metric)[2]
    return _NOUNS.get(name, name.replace("_", " "))


def subject(metric: str) -> str:
    """On what it is measured, such as "retained facts" or "dutch text"."""
    if said := safety.said(metric):
        return said[1]
    aspect, task, name = split(metric)
    words = task.replace("_", " ")
    if aspect == "language" or name in OF_TEXTS:
        return f"{words} text"
    return words if aspect == "safety" or words.startswith(aspect) else f"{aspect} {words}"


def describe(metric: str) -> str:
    """The metric in words, such as "accuracy on retained facts"."""
    return f"{noun(metric)} on {subject(metric)}"


def repeats(metric: str, others: Iterable[str]) -> bool:
    """Whether a metric is the bits per byte of a text whose perplexity is there too."""
    aspect, task, name = split(metric)
    return name == "bits_per_byte" and f"{aspect}.{task}.perplexity" in others


def amount(value: float | None, unit: Unit, like: float | None = None) -> str:
    """A score without its unit: shares in percent with one decimal, bits per byte with three, others as fits.

    Args:
        value: the score; None is said as "not finite".
        unit: what kind of score.
        like: take the number of decimals from this score, so that a spread matches its centre.
    """
    if value is None:
        return "not finite"
    if unit == "share":
        return f"{100 * value:.1f}"
    size = abs(value if like is None else like)
    if value == 0 or 1e-3 <= size < 1e6:
        digits = 3 if unit == "bits" or size < 1 else 2 if size < 100 else 1 if size < 1000 else 0
        return f"{value:,.{digits}f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def score(value: float | None, unit: Unit) -> str:
    """A score with its unit."""
    return amount(value, unit) + (" %" if unit == "share" and value is not None else "")


def signed(difference: float, unit: Unit) -> str:
    """A difference with its sign, shares in points, without the word."""
    text = amount(abs(difference), unit)
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if difference < 0 else "+") + text


def shift(difference: float, reference: float, unit: Unit) -> float:
    """A difference as it is judged and said: as it is for shares, relative to the reference for others."""
    return difference if unit == "share" or not reference else difference / abs(reference)


def change(shift: float, unit: Unit, like: float | None = None) -> str:
    """How far a score moved: "-3.0 points", "+4.1 %", or as a multiple when it more than trebled.

    Args:
        shift: difference of shares, or relative change of another score.
        unit: which of the two.
        like: say it in the form of this shift, so that both ends of an interval match their centre.
    """
    if unit == "share":
        return f"{signed(shift, unit)} points"
    if (shift if like is None else like) < 2:
        return f"{signed(shift, 'share')} %"
    times = 1 + shift
    return f"{TIMES}{times:,.1f}" if times < 100 else f"{TIMES}{times:,.0f}"


def span(low: float, high: float, unit: Unit, like: float) -> str:
    """An interval of changes, such as "-4.1 to -1.9 points", in the form of its centre."""
    start, end = change(low, unit, like), change(high, unit, like)
    return f"{start.split(' ')[0]} to {end}"


def p_value(p: float) -> str:
    """A p-value to two digits, as "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def size(num_bytes: int | None) -> str:
    """Bytes in decimal units."""
    if num_bytes is None:
        return ""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            number = num_bytes / scale
            return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"
    return f"{num_bytes} B"


def count(value: float) -> str:
    """A number of tokens or parameters, such as "250 K" or "1.5 M"."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds as "3.2 s", "4 min 10 s" or "2 h 05 min"."""
    if seconds is None:
        return ""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def bits(value: float | None) -> str:
    """Bits per weight, without needless zeros."""
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def listed(words: list[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
