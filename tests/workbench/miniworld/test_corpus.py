"""The texts of the world: reproducible, disjoint where they must be, labelled truly."""

import subprocess
import sys
from collections import Counter

import pytest

from workbench import miniworld
from workbench.miniworld.corpus import QUALITIES, TOPICS, Kind
from workbench.miniworld.tongue import tongue

KINDS: tuple[Kind, ...] = ("base", "base_heldout", "new", "new_heldout", "new_crawl")


def test_same_seed_gives_same_texts_in_another_process() -> None:
    code = "from workbench import miniworld; print(miniworld.documents('new', 3)[:500])"
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    ]
    assert told[0] == told[1] != ""


@pytest.mark.parametrize("language", ["base", "new"])
def test_another_seed_is_another_world(language: str) -> None:
    first, second = (set(miniworld.corpus(language, seed)) for seed in (1, 2))  # type: ignore[arg-type]
    assert len(first & second) < 0.01 * len(first)


@pytest.mark.parametrize("language", ["base", "new"])
def test_held_out_texts_are_no_training_texts(language: str) -> None:
    training = set(miniworld.corpus(language, 1))  # type: ignore[arg-type]
    held_out = set(miniworld.corpus(f"{language}_heldout", 1))  # type: ignore[arg-type]
    assert not training & held_out
    assert not set(miniworld.corpus("new_crawl", 1)) & held_out


@pytest.mark.parametrize("language", ["base", "new"])
def test_every_fact_is_told_in_every_shape_but_the_held_out_one(language: str) -> None:
    speech = tongue(language, 1)  # type: ignore[arg-type]
    lines = {line for text in miniworld.corpus(language, 1) for line in text.splitlines()}  # type: ignore[arg-type]
    for fact in speech.facts:
        told = [shape for shape in range(speech.asked_shapes + 1) if speech.sentence(fact, shape) in lines]
        assert tuple(told) == speech.told_shapes(fact)


@pytest.mark.parametrize("kind", KINDS)
def test_realised_shares_match_the_declared_ones(kind: Kind) -> None:
    told = miniworld.documents(kind, 1)
    topics = Counter(document.topic for document in told)
    # Five standard errors of a share of 400 documents, for a share of one half.
    for topic, share in TOPICS.items():
        assert abs(topics[topic] / len(told) - share) < 0.125
    qualities = Counter(document.quality for document in told)
    for quality, share in QUALITIES[kind].items():
        assert abs(qualities[quality] / len(told) - share) < 0.03


def test_low_quality_tells_no_fact() -> None:
    told = {tongue("new", 1).sentence(fact, shape) for fact in tongue("new", 1).facts for shape in range(5)}
    poor = [document.text for document in miniworld.documents("new", 1) if document.quality == "low"]
    assert poor
    assert not told & {line for text in poor for line in text.splitlines()}


def test_the_languages_share_no_content_word() -> None:
    base, new = (
        {word.strip(".").lower() for text in miniworld.corpus(language, 1) for word in text.split()}
        for language in ("base", "new")
    )
    assert not base & new


def test_unknown_corpus_is_refused() -> None:
    with pytest.raises(ValueError, match="base_heldout"):
        miniworld.corpus("old", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["base", "new_heldout"])
def test_topics_part_a_corpus(kind: str) -> None:
    parts = [miniworld.corpus(kind, 1, topic) for topic in ("people", "places", "things", "beasts")]  # type: ignore[arg-type]
    assert all(parts)
    assert sorted(text for part in parts for text in part) == sorted(miniworld.corpus(kind, 1))  # type: ignore[arg-type]
