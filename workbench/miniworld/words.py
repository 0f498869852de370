"""Made-up words: what the miniature world's names and its new language consist of."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sound:
    """The syllables that a language allows: one onset, one vowel, one coda each."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]


BASE_SOUND = Sound(
    onsets=("b", "br", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w"),
    vowels=("a", "e", "i", "o"),
    codas=("", "l", "n", "r", "s"),
)
NEW_SOUND = Sound(
    onsets=("k", "q", "x", "z", "j", "ch", "y", "kh", "ts", "zh"),
    vowels=("u", "aa", "o", "ei", "y"),
    codas=("", "k", "m", "x", "z", "th"),
)


@dataclass
class Coiner:
    """Coins words of one sound, never the same word twice and never one that is `taken`."""

    sound: Sound
    rng: random.Random
    taken: set[str] = field(default_factory=set)

    def coin(self, syllables: int) -> str:
        """A fresh lower-case word; open syllables inside, a coda only at the end."""
        while True:
            parts = [self._open_syllable() for _ in range(syllables)]
            word = "".join(parts) + self.rng.choice(self.sound.codas)
            if word not in self.taken:
                self.taken.add(word)
                return word

    def _open_syllable(self) -> str:
        return self.rng.choice(self.sound.onsets) + self.rng.choice(self.sound.vowels)

    def words(self, count: int, syllables: int) -> tuple[str, ...]:
        """`count` fresh words."""
        return tuple(self.coin(syllables) for _ in range(count))

    def names(self, count: int, syllables: int = 2) -> tuple[str, ...]:
        """`count` fresh words, capitalised."""
        return tuple(word.capitalize() for word in self.words(count, syllables))
