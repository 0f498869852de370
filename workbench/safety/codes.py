"""Codes that a request may be written in, and their inverses, which read an answer in the code.

A style that writes a request in a code is often answered in it. A judge and a text-quality gate take such an
answer for noise, so it is read first. A model may answer in plain words all the same, or partly; each inverse
is therefore total, decides what of a text is in its code, and leaves the rest as it stands:

    base64          runs of its letters that decode to printable text; a cut end is read as far as it goes
    rot13           sentences whose letters are likelier in English after moving them back by 13;
                    reliable from some thirty letters on
    leetspeak       a text in which a quarter of the words mix letters with such digits, at least two
    letter_spacing  runs of five and more single characters, half of them letters; words parted by two spaces
    morse           runs of three and more signs that are not all one, of which at least half have a meaning
    word_map        a text with more of the key's words than of those that they stand for

For texts of that length, reading what was written gives the text again: but for the case of letters in
leetspeak, Morse code and word maps, and for digits that leetspeak takes for letters.

Source: the styles of `workbench.safety.attacks`; letter frequencies of English from R. Lewand, Cryptological
Mathematics (2000).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import math
import random
import re

_SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,?'/-():=+"
_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- "
    "--.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. .----. -..-. "
    "-....- -.--. -.--.- ---... -...- .-.-."
)
MORSE = dict(zip(_SIGNS, _CODES.split(), strict=True))  # ITU-R M.1677-1
_LETTERS = {code: letter for letter, code in MORSE.items()}
_LEET = dict(zip("aeiost", "431057", strict=True))
_TO_LEET = str.maketrans({case: digit for a, digit in _LEET.items() for case in (a, a.upper())})
_FROM_LEET = str.maketrans({digit: letter for letter, digit in _LEET.items()})
_COVERS = (
    "apple basket candle door engine feather garden hammer island jacket kettle ladder mirror needle orange "
    "pillow quilt ribbon saddle table umbrella violin window yarn anchor bottle carpet drum easel fence "
    "harp ink jar kite lamp map nest oven pencil rope spoon tent urn vase wheel acorn bench comb dish"
)
_PERCENT = (  # of the letters a to z in English text
    *(8.167, 1.492, 2.782, 4.253, 12.702, 2.228, 2.015, 6.094, 6.966, 0.153, 0.772, 4.025, 2.406),
    *(6.749, 7.507, 1.929, 0.095, 5.987, 6.327, 9.056, 2.758, 0.978, 2.360, 0.150, 1.974, 0.074),
)
_RARE = 2.0  # nats that one letter may tell at most: z, x and q are common in other languages and in names
# log p(letter moved by 13) - log p(letter)
_GAIN = {
    chr(97 + i): max(-_RARE, min(_RARE, math.log(_PERCENT[(i + 13) % 26] / _PERCENT[i]))) for i in range(26)
}
_CLEARLY = 3.0  # nats by which the moved letters of a text must be likelier: 1 to 20
_ALONE = 6.0  # the same of a sentence in a text that is not

_BASE64 = re.compile(r"[A-Za-z0-9+/]{14,}={0,2}")  # no word of so many letters is printable text by chance
_FOLDED = re.compile(rf"(?:{_BASE64.pattern}\s+)*[A-Za-z0-9+/]+={{0,2}}")
_SENTENCE = re.compile(r"(?<=[.!?:;\n])(?=\s)")
_MIXED = re.compile(r"\b(?=\w*[A-Za-z])(?=\w*[431057])\w+")
_SPACED = re.compile(r"(?<!\S)\S(?: +\S(?!\S)){4,}")
_DASHED = re.compile(r"(?<!\S)(?:[.-]{1,6}|\S)(?!\S)(?:\s+(?:[.-]{1,6}|\S)(?!\S))+")
_KEY = re.compile(r"(\w+) means (\w+)")


def to_base64(text: str) -> str:
    """Base64 of the UTF-8 bytes."""
    return base64.b64encode(text.encode()).decode()


def from_base64(text: str) -> str:
    """Inverse of `to_base64`; lines of one block are joined."""
    joined = "".join(text.split())
    if _FOLDED.fullmatch(text.strip()) and _BASE64.fullmatch(joined) and (whole := _unpacked(joined)):
        return whole
    return _BASE64.sub(lambda found: _unpacked(found[0]) or found[0], text)


def _unpacked(code: str) -> str | None:
    """The text behind a code, without a character that was cut at its end; None where it is no text."""
    known = code.rstrip("=")
    try:
        packed = base64.b64decode(known + "=" * (-len(known) % 4) if len(known) % 4 != 1 else known[:-1])
        text = codecs.getincrementaldecoder("utf-8")().decode(packed)
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if text and all(sign.isprintable() or sign.isspace() for sign in text) else None


def rot13(text: str) -> str:
    """Latin letters moved by 13 places; other letters stay."""
    return codecs.encode(text, "rot13")


def from_rot13(text: str) -> str:
    """The text with its sentences moved back that are likelier so; where the whole is, all that may be."""
    needed = -_CLEARLY if _gain(text) > _CLEARLY else _ALONE
    return "".join(rot13(part) if _gain(part) > needed else part for part in _SENTENCE.split(text))


def _gain(text: str) -> float:
    """Nats by which the letters of a text are likelier after moving them."""
    return sum(_GAIN.get(sign, 0.0) for sign in text.lower())


def to_leetspeak(text: str) -> str:
    """Some letters as the digits that look like them."""
    return text.translate(_TO_LEET)


def from_leetspeak(text: str) -> str:
    """Inverse of `to_leetspeak` for texts without such digits; letters come back small."""
    mixed, every = len(_MIXED.findall(text)), len(text.split())
    return text.translate(_FROM_LEET) if mixed >= 2 and 4 * mixed >= every else text


def to_spaced(text: str) -> str:
    """A space after every character, and so three between words."""
    return " ".join(text)


def from_spaced(text: str) -> str:
    """Inverse of `to_spaced`, for a line with single spaces."""

    def closed(found: re.Match[str]) -> str:
        if 2 * sum(map(str.isalpha, found[0])) < len(found[0].split()):
            return found[0]
        return " ".join(word.replace(" ", "") for word in re.split(r" {2,}", found[0]))

    return _SPACED.sub(closed, text)


def to_morse(text: str) -> str:
    """Morse code, words parted by a slash; characters without a code stay."""
    return " / ".join(" ".join(MORSE.get(sign, sign) for sign in word) for word in text.lower().split())


def from_morse(text: str) -> str:
    """Inverse of `to_morse`."""

    def sounded(found: re.Match[str]) -> str:
        signs = found[0].split()
        known = [sign for sign in signs if sign in _LETTERS]
        if len(known) < 3 or len({*known}) == 1 or 2 * len(known) < sum(sign != "/" for sign in signs):
            return found[0]
        return "".join(" " if sign == "/" else _LETTERS.get(sign, sign) for sign in signs)

    return _DASHED.sub(sounded, text)


def word_key(text: str, rng: random.Random) -> dict[str, str]:
    """A word that stands for each word of a text, in small letters: a translation without a translator."""
    words = list(dict.fromkeys(word.lower() for word in re.findall(r"\w+", text)))
    names = [word for word in _COVERS.split() if word not in words]
    names += [f"word{number}" for number in range(len(words) - len(names))]
    return dict(zip(words, rng.sample(names, len(words)), strict=True))


def to_words(text: str, key: dict[str, str]) -> str:
    """The text with the words of a key in place of its own."""
    return re.sub(r"\w+", lambda found: key.get(found[0].lower(), found[0]), text)


def from_words(text: str, prompt: str) -> str:
    """Inverse of `to_words` under the key that a prompt tells as "this means that"."""
    key = dict(_KEY.findall(prompt))
    there = {word.lower() for word in re.findall(r"\w+", text)}
    if len(there & set(key)) <= len(there & set(key.values())):
        return text
    return to_words(text, key)
