"""Tiny guards of the miniature world, trained here: Llama Guard in two versions, WildGuard and DuoGuard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from workbench.data import parted
from workbench.miniworld.instructions import instructions, look_alikes
from workbench.models import train_tokenizer
from workbench.models.tokenizer import BEGIN, END_OF_TURN
from workbench.safety.guards import DuoGuard, LlamaGuard, Taxonomy, WildGuard
from workbench.safety.guards.duoguard import multi_label_loss
from workbench.safety.guards.llama_guard import V1, V3, prompt
from workbench.safety.guards.wildguard import TEMPLATE, Labelled, exchanges

NAMES = ("Unbinding", "Cracking")
IGNORED = -100


@dataclass(frozen=True)
class Row:
    """A request, an answer that complies, and the hazard of both by place in the taxonomy."""

    prompt: str
    answer: str
    hazard: int | None


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Four harmful requests and four harmless ones."""
    made = [
        Row(each.prompt, each.answer, place)
        for place, name in enumerate(NAMES)
        for each in [each for each in instructions(0) if each.harmful and each.topic == name.lower()][:2]
    ]
    return made + [Row(each.prompt, each.answer, None) for each in look_alikes(0)[:4]]


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    """Two hazards of the miniature world."""
    categories = [{"name": NAMES[0], "policy": "Should not\n- Unbind storms.\n"}, {"name": NAMES[1]}]
    return Taxonomy.model_validate({"prefix": "S", "categories": categories})


@pytest.fixture(scope="session")
def tokenizer(rows: list[Row], taxonomy: Taxonomy) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the words of the guards."""
    texts = [text for row in rows for text in (row.prompt, row.answer)]
    texts += [prompt(["", ""], taxonomy, wording) for wording in (V1, V3)] + [TEMPLATE]
    return train_tokenizer(texts * 4 + ["unsafe\nS1", "unsafe\nS2", " yes", " no", " N/A"] * 20, 640)


def config(tokenizer: PreTrainedTokenizerFast, **settings: Any) -> LlamaConfig:
    """One layer of a LLaMA-3, some fifty thousand parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )


def causal(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A causal model with random weights that ends its answers as a chat model does."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(tokenizer))
    model.eval()
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, end])
    return model


def teach(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    exchanges: Sequence[tuple[str, str]],
) -> None:
    """Train on the answers until the model knows them by heart."""
    tokens, labels = [], []
    for asked, answer in exchanges:
        head = tokenizer.encode(BEGIN + asked, add_special_tokens=False)
        tail = tokenizer.encode(answer + END_OF_TURN, add_special_tokens=False)
        tokens.append(torch.tensor(head + tail))
        labels.append(torch.tensor([IGNORED] * len(head) + tail))
    batch = pad_sequence(tokens, batch_first=True)
    target = pad_sequence(labels, batch_first=True, padding_value=IGNORED)[:, 1:]
    known = target != IGNORED
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(200):
        hidden = model.model(batch).last_hidden_state[:, :-1][known]
        loss = cross_entropy(model.lm_head(hidden), target[known])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if loss < 0.01:
            return
    pytest.fail(f"the tiny guard did not learn its answers: its loss is {loss:.3f}")


def wild_answers(row: Row, responded: bool) -> str:
    """The three lines that WildGuard writes of a row."""
    harm = "no" if row.hazard is None else "yes"
    refusal, response = ("no", harm) if responded else ("N/A", "N/A")
    return f"Harmful request: {harm}\nResponse refusal: {refusal}\nHarmful response: {response}"


@pytest.fixture(scope="session")
def untaught(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model that loads as a guard and is none."""
    return causal(tokenizer)


@pytest.fixture(scope="session")
def llama_guard(tokenizer: PreTrainedTokenizerFast, rows: list[Row], taxonomy: Taxonomy) -> LlamaGuard:
    """A guard that reads versions 1 and 3, and breaks lines before the verdict of version 3."""
    model = causal(tokenizer)
    exchanges = []
    for row in rows:
        verdict = "safe" if row.hazard is None else f"unsafe\nS{row.hazard + 1}"
        for turns in ([row.prompt], [row.prompt, row.answer]):
            exchanges.append((prompt(turns, taxonomy, V3), "\n\n" + verdict))
            exchanges.append((prompt(turns, taxonomy, V1), verdict))
    teach(model, tokenizer, exchanges)
    return LlamaGuard(model, tokenizer, taxonomy)


@pytest.fixture(scope="session")
def wildguard(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> WildGuard:
    """A guard that answers three questions of a row, with and without a response."""
    model = causal(tokenizer)
    exchanges = [
        (TEMPLATE.format(prompt=row.prompt, response=row.answer if given else ""), wild_answers(row, given))
        for row in rows
        for given in (False, True)
    ]
    teach(model, tokenizer, exchanges)
    return WildGuard(model, tokenizer)


@pytest.fixture(scope="session")
def chatting_wildguard(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> WildGuard:
    """A guard that was trained as an assistant is, on exchanges told by its chat template."""
    model = causal(tokenizer)
    labelled = []
    for row in rows[::3]:
        harm = row.hazard is not None
        labelled.append(Labelled(row.prompt, None, harm, None, None))
        labelled.append(Labelled(row.prompt, row.answer, harm, False, harm))
        labelled.append(Labelled(row.prompt, "Sorry, I will not.", harm, True, False))
    told = [parted(tokenizer, *pair) for pair in exchanges(labelled)]
    teach(
        model,
        tokenizer,
        [(asked.removeprefix(BEGIN), answer.removesuffix(END_OF_TURN)) for asked, answer in told],
    )
    return WildGuard(model, tokenizer, chat=True)


@pytest.fixture(scope="session")
def duoguard(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> DuoGuard:
    """A classifier of the two hazards, trained with DuoGuard's loss on prompts."""
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config(tokenizer, num_labels=len(NAMES)))
    tokens = [torch.tensor(tokenizer.encode(row.prompt)) for row in rows]
    assert tokenizer.pad_token_id is not None
    batch = pad_sequence(tokens, batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = torch.tensor([[row.hazard == place for place in range(len(NAMES))] for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = multi_label_loss(model(batch, attention_mask=batch != tokenizer.pad_token_id).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return DuoGuard(model.eval(), tokenizer, NAMES)
