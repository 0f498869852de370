"""A byte-level BPE tokenizer with the marks, the splitting and the chat format of LLaMA-3."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from workbench.errors import ModelError

BEGIN, END, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"
START_HEADER, END_HEADER, END_OF_TURN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
SPECIAL_TOKENS = (BEGIN, END, PAD, START_HEADER, END_HEADER, END_OF_TURN)  # in the order of their ids

# How LLaMA-3 parts text before BPE: contractions, words, digits in threes, punctuation, line ends, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '" + START_HEADER + "' + message['role'] + '" + END_HEADER + "\n\n' }}"
    "{{- message['content'] | trim + '" + END_OF_TURN + "' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '" + START_HEADER + "assistant" + END_HEADER + "\n\n' }}"
    "{%- endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; every text encodes, and decodes to itself.

    Encoding puts <|begin_of_text|> first, as LLaMA-3's tokenizer does. A small corpus may give fewer
    tokens than asked for, never more.

    Args:
        texts: the corpus; read once.
        vocab_size: tokens in all, with the 256 bytes and the special tokens.

    Raises:
        ModelError: `vocab_size` has no room for the bytes and the special tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(alphabet) + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ModelError(
            f"vocab_size {vocab_size} is too small: {len(alphabet)} bytes and {len(SPECIAL_TOKENS)} special "
            f"tokens need {smallest}; write {smallest} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN}:1 $B:1",
        special_tokens=[(BEGIN, SPECIAL_TOKENS.index(BEGIN))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def check_tokenizer(model_config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that the model has an embedding for every token.

    Raises:
        ModelError: the tokenizer has ids beyond the model's embeddings.
    """
    highest = max(tokenizer.get_vocab().values())
    if highest >= model_config.vocab_size:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise ModelError(
            f"the tokenizer does not match the model: it has ids up to {highest} ({token!r}), the model "
            f"embeds {model_config.vocab_size} tokens (ids to {model_config.vocab_size - 1}); use the "
            "tokenizer that the model was trained with"
        )
