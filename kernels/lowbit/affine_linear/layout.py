"""The dense packing of 1- to 8-bit codes into 32-bit words, along the last axis (drawn in README.md).

A row of n codes is one stream of n * bits bits, lowest bit first, cut into words; a code may straddle
two words, so that every width costs exactly its bits. 32 codes always fill `bits` whole words: that
is the period in which the arithmetic below works.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

WORD = 32


def num_words(num_codes: int, bits: int) -> int:
    """32-bit words that a row of `num_codes` codes takes; only the last one can have unused bits."""
    return -(-num_codes * bits // WORD)


def implied_zero_point(bits: int) -> float:
    """Zero point of a symmetric grid, which is not stored: the middle code.

    At 1 bit the middle lies between the two codes, so that the levels are -scale/2 and +scale/2.
    """
    return 2.0 ** (bits - 1) if bits > 1 else 0.5


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes along the last axis.

    Args:
        codes: [..., n], integers in [0, 2**bits).
        bits: width of a code, 1 to 8.

    Returns:
        Words [..., ceil(n * bits / 32)], int32; unused bits at the end are 0.

    Raises:
        ValueError: bits outside 1 to 8, or a code that does not fit.
    """
    _check_bits(bits)
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits:
        raise ValueError(f"codes from {int(codes.min())} to {int(codes.max())} do not fit {bits} bits")
    n = codes.shape[-1]
    # [..., periods, 32]; int64, because torch has no unsigned 32-bit shifts on every device
    periods = pad(codes.long(), (0, -n % WORD)).unflatten(-1, (-1, WORD))
    words = periods.new_zeros(*periods.shape[:-1], bits)
    for i in range(WORD):
        word, shift = divmod(i * bits, WORD)
        words[..., word] |= (periods[..., i] << shift) & 0xFFFFFFFF
        if shift + bits > WORD:
            words[..., word + 1] |= periods[..., i] >> (WORD - shift)
    # two's complement by hand: a conversion of 2**31 and more to int32 is not defined everywhere
    signed = torch.where(words >= 2**31, words - 2**32, words)
    return signed.flatten(-2)[..., : num_words(n, bits)].to(torch.int32).contiguous()


def unpack(words: Tensor, bits: int, num_codes: int) -> Tensor:
    """Undo `pack`.

    Args:
        words: [..., ceil(num_codes * bits / 32)], int32.
        bits: width of a code, 1 to 8.
        num_codes: codes in a row.

    Returns:
        Codes [..., num_codes], uint8.

    Raises:
        ValueError: bits outside 1 to 8, or another number of words.
    """
    _check_bits(bits)
    if words.shape[-1] != num_words(num_codes, bits):
        expected = num_words(num_codes, bits)
        raise ValueError(f"{num_codes} codes of {bits} bits take {expected} words; found {words.shape[-1]}")
    # [..., periods, bits]
    periods = (pad(words, (0, -words.shape[-1] % bits)).long() & 0xFFFFFFFF).unflatten(-1, (-1, bits))
    codes = torch.empty(*periods.shape[:-1], WORD, dtype=torch.uint8, device=words.device)
    for i in range(WORD):
        word, shift = divmod(i * bits, WORD)
        code = periods[..., word] >> shift
        if shift + bits > WORD:
            code = code | periods[..., word + 1] << (WORD - shift)
        codes[..., i] = code & (2**bits - 1)
    return codes.flatten(-2)[..., :num_codes].contiguous()


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits {bits} is not supported; codes have 1 to 8 bits")
