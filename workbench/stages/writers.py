"""Who writes synthetic text: a model in this process, or a server that speaks OpenAI's chat protocol.

A model goes on from the prompt; a server gets the prompt as a user's turn, since what is offered there
are chat models. Its key is read from the environment, is sent to the endpoint alone and is written
nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, StoppingCriteria

from workbench import models
from workbench.data.synthetic import Written
from workbench.errors import DataError
from workbench.recipe.preparation import Synthetic

Write = Callable[[list[str], int], list[Written]]  # prompts and a seed to what follows each

KEY = "OPENAI_API_KEY"
CONNECTIONS = 8
TIMEOUT_S = 300.0
TRIES, WAIT_S = 5, 1.0  # the wait doubles from one try to the next
TAIL = 16  # tokens at the end of a row in which the mark that ends a pair is looked for


def local(folder: Path, dtype: torch.dtype, settings: Synthetic) -> Write:
    """A writer from a model folder; what it writes depends on the prompts and the seed alone."""
    model = models.load(folder, dtype)
    torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
    return partial(_written, model, models.load_tokenizer(folder), settings)


def _written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    settings: Synthetic,
    prompts: list[str],
    seed: int,
) -> list[Written]:
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    asked = [begin + tokenizer.encode(text, add_special_tokens=False) for text in prompts]
    room = model.config.max_position_embeddings - settings.max_new_tokens
    fitting = [i for i, ids in enumerate(asked) if 0 < len(ids) <= room]
    found = [Written(None, False)] * len(prompts)
    if fitting:
        made = _generated(model, tokenizer, settings, [asked[i] for i in fitting], seed)
        for i, ids in zip(fitting, made, strict=True):
            text, mark, _ = str(tokenizer.decode(ids, skip_special_tokens=True)).partition(settings.stop)
            found[i] = Written(text, bool(mark) or tokenizer.eos_token_id in ids)
    return found


@torch.no_grad()
def _generated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    settings: Synthetic,
    asked: list[list[int]],
    seed: int,
) -> list[list[int]]:
    """Tokens that follow each of B prompts, the token that ends a text included."""
    longest = max(map(len, asked))
    tokens = torch.zeros(len(asked), longest, dtype=torch.int64)  # [B, P], prompts end together
    mask = torch.zeros_like(tokens)
    for row, ids in enumerate(asked):
        tokens[row, longest - len(ids) :] = torch.tensor(ids)
        mask[row, longest - len(ids) :] = 1
    sampling = {"do_sample": True, "temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0,
        **(sampling if settings.temperature else {"do_sample": False}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generate: Any = model.generate
        rows = generate(
            tokens.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            stopping_criteria=[_Ended(tokenizer, settings.stop, longest)],
        )
    made: list[list[int]] = rows[:, longest:].tolist()
    return made


class _Ended(StoppingCriteria):
    """Whether a row has written the mark that ends a pair."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop: str, prompt_length: int) -> None:
        self.tokenizer, self.stop, self.prompt_length = tokenizer, stop, prompt_length

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        tails = input_ids[:, max(self.prompt_length, input_ids.shape[1] - TAIL) :].tolist()
        ended = [self.stop in text for text in self.tokenizer.batch_decode(tails)]
        return torch.tensor(ended, device=input_ids.device)


def endpoint(settings: Synthetic) -> Write:
    """A writer behind a base URL, such as `http://localhost:8000/v1`."""
    assert settings.writer.endpoint
    key = os.environ.get(KEY)
    client = httpx.Client(
        base_url=settings.writer.endpoint.rstrip("/"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=TIMEOUT_S,
    )

    def write(prompts: list[str], seed: int) -> list[Written]:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            numbered = zip(prompts, range(seed, seed + len(prompts)), strict=True)
            return list(pool.map(lambda each: _answer(client, settings, *each), numbered))

    return write


def _answer(client: httpx.Client, settings: Synthetic, prompt: str, seed: int) -> Written:
    body = {
        "model": settings.writer.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "stop": [settings.stop],
        "seed": seed,
    }
    reply = _posted(client, body)
    try:
        choice = reply.json()["choices"][0]
        text, ended = choice["message"]["content"], choice["finish_reason"] == "stop"
        return Written(str(text or "").partition(settings.stop)[0], ended)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{reply.url}: not a chat completion ({type(error).__name__}: {error}); writer.endpoint must be "
            "the base URL of a server that speaks the OpenAI protocol, such as http://localhost:8000/v1"
        ) from error


def _posted(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    """The reply to a request; a server that is busy, or fails, is asked again."""
    url = f"{client.base_url}chat/completions"
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            reply = client.post("/chat/completions", json=body)
        except httpx.TransportError as error:
            problem = f"{type(error).__name__}: {error}"
            continue
        if reply.is_success:
            return reply
        problem = f"status {reply.status_code}: {reply.text[:200]}"
        if reply.status_code != 429 and reply.status_code < 500:
            break
    raise DataError(
        f"{url}: {problem}; check writer.endpoint, writer.model and {KEY}, then start again: "
        "what was written is kept"
    )
