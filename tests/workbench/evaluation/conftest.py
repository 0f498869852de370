"""A folder of small lm-eval tasks, a text, and a tiny model that knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench import data, models
from workbench.data import TokenFile
from workbench.evaluation import Battery

SENTENCES = [f"The {animal} of {place} eats {food}." for animal in ("cat", "dog", "owl", "fish")
             for place in ("Rome", "Oslo", "Lima") for food in ("bread", "rice pudding", "figs")]  # fmt: skip

TASKS = """
import random
from datasets import Dataset

def ask(seed, split_name="test", **_):
    rng = random.Random(seed)
    foods = ["bread", "rice pudding", "figs", "soup"]
    rows = []
    for i in range(23):
        choices = rng.sample(foods, 4)
        rows.append({"question": f"The {rng.choice(['cat', 'dog'])} number {i} eats", "choices": choices,
                     "gold": rng.randrange(4)})
    return {split_name: Dataset.from_list(rows), "train": Dataset.from_list(rows[:9])}
"""

TASK = """
custom_dataset: !function tasks.ask
output_type: multiple_choice
test_split: test
fewshot_split: train
doc_to_text: question
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
metadata: {version: 3}
"""


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "tasks.py").write_text(dedent(TASKS))
    (folder / "_base.yaml").write_text(TASK)
    (folder / "animals.yaml").write_text("include: _base.yaml\ntask: animals\n")
    (folder / "whole.yaml").write_text('include: _base.yaml\ntask: whole\ndoc_to_text: ""\n')
    return folder


@pytest.fixture
def battery(task_folder: Path) -> Callable[..., Battery]:
    """Make a battery of some of the tasks."""

    def make(*tasks: dict[str, Any], **more: Any) -> Battery:
        settings = {"name": "small", "description": "", "task_folders": [str(task_folder)], "batch_size": 5}
        return Battery.model_validate({**settings, "tasks": tasks, **more})

    return make


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return models.train_tokenizer(SENTENCES, 300)


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=96,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def text(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    return data.write_tokens(SENTENCES, tokenizer, tmp_path_factory.mktemp("text"), "sentences")
