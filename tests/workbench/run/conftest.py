"""A recipe small enough to be run whole in a test: a few thousand weights, a few hundred documents."""

from __future__ import annotations

from pathlib import Path

import pytest

RECIPE = """\
name: tiny
description: the whole way in seconds
seed: 3
model:
  new:
    vocab_size: 320
    hidden_size: 32
    intermediate_size: 64
    layers: 2
    heads: 2
    kv_heads: 1
    context: 128
    tokenizer_sources: [old]
data:
  old: {miniworld: base, documents: [0, 300]}
  new: {miniworld: new, documents: [0, 300]}
stages:
  - {kind: pretrain, mixture: {old: 1.0}, tokens: 4096, batch_size: 8, sequence_length: 64,
     learning_rate: 1e-2, checkpoint_every: 3}
  - {kind: cpt, methods: [full, replay], mixture: {new: 1.0}, replay: {ratio: 0.5, mixture: {old: 1.0}},
     tokens: 2048, batch_size: 8, sequence_length: 64, learning_rate: 1e-2, probe_every: 2,
     probe_limit: 8}
  - {kind: quantize, from: cpt-replay, methods: [rtn, gptq], bits: [4], group_size: 32,
     calibration: {mixture: {old: 1.0}, sequences: 8, sequence_length: 64}}
evaluate:
  battery: miniworld
  rows: [base, cpt-replay, rtn-w4, gptq-w4]
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the tiny recipe."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path
