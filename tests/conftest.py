"""What all tests share: no network, few threads, one seed, a tiny LLaMA-3 folder, and the shared data."""

from __future__ import annotations

import os

# Before torch and the Hugging Face libraries are imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})

import gc
import ipaddress
import multiprocessing
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
TEXT = [
    "The river runs past the old mill and under the stone bridge.",
    "Nobody in the village remembers who built the bridge, or when.",
    "Every spring the water rises, and every summer it falls again.",
    "Zoë's café opens at 7:30; naïve prices like 3.14 are written in chalk.",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """Leave what imports have made out of all garbage collections; DeepSpeed asks for one each training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Let a test that reaches beyond this machine fail at once, and say so."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise RuntimeError(f"a test tried to connect to {address}: tests run offline")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local)
        yield


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    """Hold torch to as many threads as OMP_NUM_THREADS says: tiny tensors only lose by more."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every random source alike before each test."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(scope="session")
def stranger() -> Callable[..., None]:
    """Run a program with its arguments in a new process that never loaded the workbench; it must succeed.

    Each is the fork of one process that has imported transformers and nothing else, seconds sooner ready
    than a new interpreter.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers.models.auto.modeling_auto", "transformers.models.llama"])

    def run(program: str, *arguments: str | Path) -> None:
        told = f"import sys\nsys.argv[1:] = {[str(argument) for argument in arguments]}\n"
        process = context.Process(target=exec, args=(told + program, {}))
        process.start()
        process.join()
        assert process.exitcode == 0, "its error stands among what the test wrote to stderr"

    return run


@pytest.fixture
def shared_data() -> Path:
    """Folder of real weights and text (WORKBENCH_DATA, default ../shared/data); skips where it is absent."""
    folder = Path(os.environ.get("WORKBENCH_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no shared data at {folder}; set WORKBENCH_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA-3 folder with random weights and its tokenizer; read it, never write to it.

    Grouped-query attention (4 query heads, 2 key-value heads), 2 layers, hidden 64, intermediate 128,
    vocabulary 320, context 128, rope theta 500000, untied. Made with transformers and tokenizers
    alone, so that it can stand witness against the workbench's own code.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[begin, end, "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, 0)]
    )
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token="<|pad|>"
    )
    fast.save_pretrained(folder)
    return folder
