"""Packing loses nothing, costs exactly its bits, and lies where README.md draws it."""

from __future__ import annotations

import pytest
import torch
from lowbit.affine_linear import num_words, pack, unpack
from lowbit.affine_linear.layout import PLANES


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("num_codes", [1, 7, 31, 32, 33, 128, 130, 172, 352])
def test_unpack_undoes_pack(bits: int, num_codes: int) -> None:
    codes = torch.randint(2**bits, (3, num_codes), dtype=torch.uint8)
    codes[0] = 2**bits - 1  # all bits set: words with the sign bit
    words = pack(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (3, bits * -(-num_codes // 32))
    assert torch.equal(unpack(words, bits, num_codes), codes)


def test_every_code_of_eight_bits_comes_back() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(unpack(pack(codes, 8), 8, 256), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_lie_where_the_law_says(bits: int) -> None:
    """An independent reader: Python integers, one code at a time, by the formula of the header."""
    num_codes = 128 + 3 * 32 - 5
    codes = torch.randint(2**bits, (num_codes,), dtype=torch.uint8)
    words = [word & 0xFFFFFFFF for word in pack(codes, bits).tolist()]
    for position, expected in enumerate(codes.tolist()):
        period, first = (128, 0) if position < 128 else (32, 128)
        t, k = divmod(position - first, period)
        base = first * bits // 32 + t * period * bits // 32
        code = 0
        for width, shift in PLANES[bits]:
            size = period * width // 32
            i, rest = divmod(k, 2 * size)
            w, h = divmod(rest, 2)
            code |= (words[base + w] >> 16 * h + width * i & (1 << width) - 1) << shift
            base += size
        assert code == expected


@pytest.mark.parametrize("bits", range(1, 9))
def test_thirty_two_codes_fill_whole_words(bits: int) -> None:
    assert num_words(32, bits) == bits
    assert num_words(4096, bits) * 32 == 4096 * bits
    assert sum(width for width, _ in PLANES[bits]) == bits


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 8 bits"):
        pack(torch.zeros(1, 8, dtype=torch.uint8), 9)
    with pytest.raises(ValueError, match="1 to 8 bits"):
        unpack(torch.zeros(1, 1, dtype=torch.int32), 0, 8)
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        pack(torch.tensor([[8]]), 3)
    with pytest.raises(ValueError, match="take 8 words; found 1"):
        unpack(torch.zeros(1, 1, dtype=torch.int32), 4, 33)
