"""Who writes text: a model in this process, or a server that speaks OpenAI's protocol.

A model goes on from the prompt; a server gets the prompt as a user's turn, since what is offered there
are chat models. The chosen answers of triplets are replies: there a model gets the prompt as a user's turn
too, and all write what is likeliest. An empty prompt asks for text from nothing: a model begins with its
BOS token, or with any token where it has no such mark, and a server is asked to complete an empty text.
Its key is read from the environment, is sent to the endpoint alone and is written nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, StoppingCriteria

from workbench import data, models, storage
from workbench.data.synthetic import Written
from workbench.errors import DataError
from workbench.recipe.preparation import Generated, Synthetic, Writer
from workbench.recipe.safety import Triplets
from workbench.recipe.schema import Recipe
from workbench.stages.job import job_of
from workbench.storage import Store

Asked = Synthetic | Generated | Triplets
Write = Callable[[list[str], int], list[Written]]  # prompts and a seed to what follows each

KEY = "OPENAI_API_KEY"
CONNECTIONS = 8
TIMEOUT_S = 300.0
TRIES, WAIT_S = 5, 1.0  # the wait doubles from one try to the next
BATCH = 64  # replies of a model at once
TAIL = 16  # tokens at the end of a row in which the mark that ends a pair is looked for


def of(store: Store, settings: Asked, recipe: Recipe) -> Write:
    """The writer that a source names.

    Raises:
        RecipeError: it is a variant that the recipe does not make.
    """
    writer = _writer(settings)
    if writer.endpoint:
        return endpoint(settings)
    if writer.path:
        return local(data.resolve(writer.path), torch.float32, settings)
    assert writer.variant
    job = job_of(recipe, writer.variant, store)
    return local(job.model_folder, getattr(torch, job.origin.dtype), settings)


def _writer(settings: Asked) -> Writer:
    writer = settings.chosen if isinstance(settings, Triplets) else settings.writer
    assert writer
    return writer


def kept(write: Write, prompts: list[str], seed: int, path: Path) -> list[Written]:
    """What was written for a batch of prompts, now or in a try before, which left it in `path`."""
    if not path.is_file():
        storage.write_json(path, [asdict(each) for each in write(prompts, seed)])
    return [Written(**each) for each in storage.read_json(path)]


def local(folder: Path, dtype: torch.dtype, settings: Asked) -> Write:
    """A writer from a model folder; what it writes depends on the prompts and the seed alone."""
    model = models.load(folder, dtype)
    torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
    tokenizer = models.load_tokenizer(folder)
    if isinstance(settings, Triplets):
        return partial(_replied, model, tokenizer, settings)
    return partial(_written, model, tokenizer, settings)


def _replied(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, settings: Triplets, prompts: list[str], _: int
) -> list[Written]:
    from workbench.evaluation import answers  # imports lm-eval, which takes seconds

    made = answers.generate(
        model,
        tokenizer,
        [answers.Asked(text) for text in prompts],
        max_new_tokens=settings.max_new_tokens,
        batch_size=BATCH,
        title="chosen answers",
    )
    return [Written(each.text, each.finished) for each in made]


def _written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    settings: Synthetic | Generated,
    prompts: list[str],
    seed: int,
) -> list[Written]:
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    asked = [begin + tokenizer.encode(text, add_special_tokens=False) for text in prompts]
    drawn = [[] for _ in prompts] if begin or all(prompts) else _drawn(tokenizer, prompts, seed)
    asked = [first + ids for first, ids in zip(drawn, asked, strict=True)]
    room = model.config.max_position_embeddings - settings.max_new_tokens
    fitting = [i for i, ids in enumerate(asked) if 0 < len(ids) <= room]
    found = [Written(None, False)] * len(prompts)
    if fitting:
        made = _generated(model, tokenizer, settings, [asked[i] for i in fitting], seed)
        for i, ids in zip(fitting, made, strict=True):
            text, ended = _cut(str(tokenizer.decode(drawn[i] + ids, skip_special_tokens=True)), settings)
            found[i] = Written(text, ended or tokenizer.eos_token_id in ids)
    return found


def _drawn(tokenizer: PreTrainedTokenizerFast, prompts: list[str], seed: int) -> list[list[int]]:
    """For each empty prompt a token that is no mark, all alike likely."""
    marks = set(tokenizer.all_special_ids)
    plain = torch.tensor([token for token in range(len(tokenizer)) if token not in marks])
    chosen = torch.randint(len(plain), (len(prompts),), generator=torch.Generator().manual_seed(seed))
    return [[] if text else [int(token)] for text, token in zip(prompts, plain[chosen], strict=True)]


def _cut(text: str, settings: Asked) -> tuple[str, bool]:
    """What stands before the mark that ends a pair, and whether the mark is there."""
    if not isinstance(settings, Synthetic):
        return text, False
    before, mark, _ = text.partition(settings.stop)
    return before, bool(mark)


@torch.no_grad()
def _generated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    settings: Synthetic | Generated,
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
    ends = [_Ended(tokenizer, settings.stop, longest)] if isinstance(settings, Synthetic) else []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generate: Any = model.generate
        rows = generate(
            tokens.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            stopping_criteria=ends,
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


def endpoint(settings: Asked) -> Write:
    """A writer behind a base URL, such as `http://localhost:8000/v1`."""
    base = _writer(settings).endpoint
    assert base
    key = os.environ.get(KEY)
    client = httpx.Client(
        base_url=base.rstrip("/"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=TIMEOUT_S,
    )

    def write(prompts: list[str], seed: int) -> list[Written]:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            numbered = zip(prompts, range(seed, seed + len(prompts)), strict=True)
            return list(pool.map(lambda each: _answer(client, settings, *each), numbered))

    return write


def _answer(client: httpx.Client, settings: Asked, prompt: str, seed: int) -> Written:
    body: dict[str, Any] = {
        "model": _writer(settings).model,
        "max_tokens": settings.max_new_tokens,
        "temperature": 0.0 if isinstance(settings, Triplets) else settings.temperature,
        "seed": seed,
    }
    if isinstance(settings, Generated):
        reply = _posted(client, "completions", body | {"prompt": prompt})
    else:
        stop = {"stop": [settings.stop]} if isinstance(settings, Synthetic) else {}
        turn = {"role": "user", "content": prompt}
        reply = _posted(client, "chat/completions", body | {"messages": [turn], **stop})
    try:
        choice = reply.json()["choices"][0]
        text = choice["text"] if isinstance(settings, Generated) else choice["message"]["content"]
        return Written(_cut(str(text or ""), settings)[0], choice["finish_reason"] == "stop")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{reply.url}: not a completion ({type(error).__name__}: {error}); writer.endpoint must be "
            "the base URL of a server that speaks the OpenAI protocol, such as http://localhost:8000/v1"
        ) from error


def _posted(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    """The reply to a request; a server that is busy, or fails, is asked again."""
    url = f"{client.base_url}{path}"
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            reply = client.post(path, json=body)
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
