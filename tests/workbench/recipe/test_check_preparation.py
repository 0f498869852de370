"""A preparation that cannot be made, or not be read as its reader asks, is found before anything runs."""

from collections.abc import Callable

import pytest

from workbench import recipe

Faults = Callable[..., list[str]]
DATA = """\
  young: {path: $WORKBENCH_DATA/text/young.txt}
  beasts: {miniworld: base, topic: beasts}
  good: {prepared: clean, where: {topic: beasts, best: 0.2}}
prepare:
  clean:
    sources: [young, old]
    near: {}
    decontaminate: {}
    topic: {seeds: {beasts: beasts, rest: old}}
    quality: {reference: old}
"""
YOUNG = ("  young: {path: $WORKBENCH_DATA/text/young.txt}\n", DATA)


def test_a_right_one_is_right(load: Callable[[str], recipe.Loaded], sound: str) -> None:
    assert load(sound.replace(*YOUNG)).recipe.prepare["clean"].texts == {"young", "old", "beasts"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[young, old]", "[young, odl]", 'prepare.clean.sources[1]: no source "odl" in data'),
        ("[young, old]", "[young, young]", "prepare.clean.sources: names young more than once"),
        ("rest: old}", "rest: new}", 'prepare.clean.topic.seeds.rest: no source "new" in data'),
        ("reference: old", "reference: odl", 'prepare.clean.quality.reference: no source "odl" in data'),
        ("prepared: clean", "prepared: cleen", 'data.good.prepared: no preparation "cleen" in prepare'),
        ("topic: beasts, best", "topic: beats, best", 'where.topic: prepare.clean knows no topic "beats"'),
        ("{topic: beasts, best", "{language: nl, best", "where.language: prepare.clean tags no language"),
        ("    quality: {reference: old}\n", "", "data.good.where.best: prepare.clean scores no quality"),
        ("[young, old]", "[young, good]", "prepare.clean.sources: reads what it makes itself"),
        (
            "path: $WORKBENCH_DATA/text/young.txt",
            "path: y.jsonl, chat: {prompt: p, response: r}",
            "has exchanges",
        ),
        ("evaluate:\n  battery: miniworld\n", "", "prepare.clean.decontaminate: there is no evaluate"),
    ],
)
def test_says_what_is_wrong(faults: Faults, old: str, new: str, said: str) -> None:
    assert any(said in line for line in faults(YOUNG, (old, new))), faults(YOUNG, (old, new))
