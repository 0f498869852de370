"""The manifest: nothing stands on both sides, and no base question trains and measures."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.errors import DataError
from workbench.safety.attacks import PLAIN, STYLES
from workbench.safety.splits import Manifest, Place, Sides


@dataclass(frozen=True)
class Question:
    id: str
    base_id: str
    topics: tuple[str, ...]
    style: str
    harmful: bool = True


def manifest(held_out: float = 0.25, seed: int = 0) -> Manifest:
    styles = {side: tuple(n for n, s in STYLES.items() if s.split == side) for side in ("seen", "unseen")}
    return Manifest(
        topics=Sides(seen=("storms", "beasts"), unseen=("seals",)),
        styles=Sides(**styles),
        held_out=held_out,
        seed=seed,
    )


def questions(bases: int = 40) -> list[Question]:
    topics = itertools.cycle(
        [("storms",), ("beasts",), ("seals",), ("storms", "beasts"), ("storms", "seals")]
    )
    return [
        Question(f"{base}/{style}", f"b{base}", topic, style)
        for base, topic in zip(range(bases), topics, strict=False)
        for style in (PLAIN, *STYLES)
    ]


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_no_base_question_trains_and_measures(seed: int, held_out: float) -> None:
    divided = manifest(held_out, seed).divide(questions())
    bases = {part: {row.base_id for row in rows} for part, rows in divided.items()}
    assert not bases["train"] & bases["evaluation"]
    assert sum(map(len, divided.values())) == len(questions())


def test_training_sees_seen_topics_and_styles_only() -> None:
    split = manifest()
    divided = split.divide(questions())
    assert divided["train"] and divided["evaluation"]
    for row in divided["train"]:
        assert set(row.topics) <= set(split.topics.seen)
        assert row.style in (*split.styles.seen, PLAIN)


def test_unseen_rows_have_no_topic_or_style_of_training() -> None:
    split = manifest()
    divided = split.divide(questions())
    topics = {topic for row in divided["train"] for topic in row.topics}
    styles = {row.style for row in divided["train"]}
    places = [(row, split.place(row)) for row in divided["evaluation"]]
    assert {(place.topics, place.style) for _, place in places} == set(
        itertools.product(("seen", "unseen"), repeat=2)
    )
    for row, place in places:
        assert place.topics != "unseen" or not topics & set(row.topics)
        assert place.style != "unseen" or row.style not in styles


def test_topics_of_both_sides_neither_train_nor_measure() -> None:
    row = Question("r", "b", ("storms", "seals"), PLAIN)
    assert manifest().place(row) == Place(None, "seen")
    assert manifest(held_out=1).divide([row]) == {"train": [], "evaluation": [], "unused": [row]}


def strata(rows: list[Question], held: frozenset[str]) -> dict[object, tuple[int, int]]:
    """Held base questions and all of them, by topics and by how they are asked."""
    found: dict[object, set[str]] = {}
    for base in {row.base_id for row in rows}:
        mine = [row for row in rows if row.base_id == base]
        found.setdefault((mine[0].topics, frozenset(row.harmful for row in mine)), set()).add(base)
    return {name: (len(bases & held), len(bases)) for name, bases in found.items()}


@given(st.integers(0, 1000), st.floats(0, 1), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_each_stratum_keeps_its_share_to_less_than_one_question(seed: int, share: float, bases: int) -> None:
    rows = [replace(row, harmful=int(row.base_id[1:]) % 3 > 0) for row in questions(bases)]
    seen = [row for row in rows if "seals" not in row.topics]
    for kept, whole in strata(seen, manifest(share, seed).held(seen)).values():
        assert abs(kept - share * whole) < 1


@pytest.mark.parametrize(("share", "bases"), [(0.25, 8), (0.2, 5), (0.29, 100), (0.0, 7), (1.0, 7)])
def test_a_whole_share_is_met_exactly(share: float, bases: int) -> None:
    rows = [Question(f"{topic}{i}", f"{topic}{i}", (topic,), PLAIN) for i in range(bases) for topic in "ab"]
    for seed in range(5):
        assert {kept for kept, _ in strata(rows, manifest(share, seed).held(rows)).values()} == {
            round(share * bases)
        }


def test_strata_of_one_question_keep_the_share_together() -> None:
    rows = [Question(str(i), str(i), (f"topic {i}",), PLAIN) for i in range(1000)]
    assert abs(len(manifest(0.25).held(rows)) / 1000 - 0.25) < 0.055  # four standard deviations


def test_the_order_of_the_rows_changes_nothing_and_the_seed_does() -> None:
    rows = [row for row in questions() if "seals" not in row.topics]
    held = manifest().held(rows)
    assert held == manifest().held(random.Random(0).sample(rows, len(rows)))
    assert held != manifest(seed=1).held(rows)


def test_what_is_added_elsewhere_changes_nothing_and_in_a_stratum_only_its_border() -> None:
    rows = [Question(f"{topic}{i}", f"{topic}{i}", (topic,), PLAIN) for i in range(40) for topic in "ab"]
    held = manifest().held(rows)
    more = [Question(f"a{i}", f"a{i}", ("a",), PLAIN) for i in range(40, 44)]
    after = manifest().held([*rows, *more])
    assert {name for name in held if "b" in name} == {name for name in after if "b" in name}
    assert len((held ^ after) - {row.base_id for row in more}) <= len(more)


def test_overlap_is_an_error_that_names_both_rows() -> None:
    with pytest.raises(ValidationError, match=r"unseen\[1\]: 'beasts' already stands at seen\[0\]"):
        Sides(seen=("beasts",), unseen=("seals", "beasts"))
    with pytest.raises(ValidationError, match=r"seen\[1\]: 'beasts' already stands at seen\[0\]"):
        Sides(seen=("beasts", "beasts"), unseen=("seals",))
    with pytest.raises(ValidationError, match=r"styles.unseen\[0\]: a plain request"):
        Manifest(topics=Sides(seen=("a",), unseen=("b",)), styles=Sides(seen=("c",), unseen=(PLAIN,)))


def test_rows_that_do_not_fit_are_named() -> None:
    row = Question("r3", "b3", ("storms",), "story")
    split = manifest()
    with pytest.raises(DataError, match=r"row 'r3': the manifest has no style 'riddle'; it knows .*story"):
        split.place(replace(row, style="riddle"))
    with pytest.raises(DataError, match=r"row 'r3': the manifest has no topic 'moons'; it knows beasts, "):
        split.place(replace(row, topics=("moons",)))
    with pytest.raises(DataError, match=r"row 'r3': it has no topic"):
        split.place(replace(row, topics=()))
    with pytest.raises(DataError, match=r"row 'r3': another row has the same id"):
        split.divide([row, row])
    with pytest.raises(DataError, match=r"row 'r4': topics \['seals'\], but row 'r3'.*'b3' has \['storms'\]"):
        split.divide([row, replace(row, id="r4", topics=("seals",))])
