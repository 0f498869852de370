# ruff: noqa: E501 - a message stands on one line here, as users see it.
"""Faults between a vocabulary stage and the rest of the recipe."""

from __future__ import annotations

from collections.abc import Callable

import pytest

STAGE = """\
  - kind: vocabulary
    name: voc
    from: base
    sources: [young]
    tokens: 100
    methods: [translation]
    alignment: {old: old, new: young}
  - kind: cpt
    from: voc-translation
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sources: [young]", "sources: [yuong]", 'stages[1].vocabulary.sources[0]: no source "yuong" in data; did you mean young? there are: old, young'),
        ("new: young}", "new: yonug}", 'stages[1].vocabulary.alignment.new: no source "yonug" in data; did you mean young? there are: old, young'),
        ("old: old,", "old: x,", 'stages[1].vocabulary.alignment.old: no source "x" in data; there are: old, young'),
        ("new: young}", "new: old}", "stages[1].vocabulary.alignment.new: is the old text itself; name its translation"),
        ("methods: [translation]", "methods: [translation]\n    output: mean", "stages[1].vocabulary.output: model.new ties output and input embeddings: leave output out"),
        ("    alignment: {old: old, new: young}\n", "", "stages[1].vocabulary: translation needs alignment: name parallel text"),
        ("methods: [translation]", "methods: []", "stages[1].vocabulary.methods"),
    ],
)  # fmt: skip
def test_faults_are_told_with_their_place(
    faults: Callable[..., list[str]], old: str, new: str, message: str
) -> None:
    assert STAGE.count(old) == 1
    assert any(message in fault for fault in faults(("  - kind: cpt\n", STAGE.replace(old, new))))


def test_a_sound_stage_passes(load: Callable[..., object], sound: str) -> None:
    assert load(sound.replace("  - kind: cpt\n", STAGE, 1))
