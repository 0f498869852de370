"""A small recipe that is right, and what is said about one that is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import recipe
from workbench.errors import RecipeError

SOUND = """\
name: small
description: a new model, continued, quantized
model:
  new:
    vocab_size: 512
    hidden_size: 64
    intermediate_size: 128
    layers: 2
    heads: 4
    kv_heads: 2
    context: 256
    tokenizer_sources: [old]
data:
  old: {miniworld: base}
  young: {path: $WORKBENCH_DATA/text/young.txt}
stages:
  - kind: pretrain
    mixture: {old: 1.0}
    tokens: 1e6
    batch_size: 16
    sequence_length: 128
    learning_rate: 1e-3
  - kind: cpt
    methods: [full, replay]
    mixture: {young: 1.0}
    replay: {ratio: 0.3, mixture: {old: 1.0}}
    tokens: 1e5
    batch_size: 16
    sequence_length: 128
    learning_rate: 5e-4
  - kind: quantize
    from: cpt-replay
    methods: [rtn, gptq]
    bits: [8, 4]
    calibration: {mixture: {old: 1.0}, sequences: 16, sequence_length: 128}
evaluate:
  battery: miniworld
expect:
  base.retained.facts.acc: [0.8, 1.0]
"""

Load = Callable[..., recipe.Loaded]
Faults = Callable[..., list[str]]


@pytest.fixture
def sound() -> str:
    """Text of a recipe without a fault."""
    return SOUND


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a recipe text, stored as `r.yaml` in the current directory."""
    monkeypatch.chdir(tmp_path)

    def _load(text: str, *overrides: str) -> recipe.Loaded:
        Path("r.yaml").write_text(text, encoding="utf-8")
        return recipe.load(Path("r.yaml"), overrides)

    return _load


@pytest.fixture
def faults(load: Load) -> Faults:
    """Lines that are said about the sound recipe after replacing `old` by `new`, pair by pair."""

    def _faults(*replacements: tuple[str, str], overrides: tuple[str, ...] = ()) -> list[str]:
        text = SOUND
        for old, new in replacements:
            assert text.count(old) == 1, f"{old!r} must stand once in the sound recipe"
            text = text.replace(old, new)
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        return str(caught.value).splitlines()

    return _faults
