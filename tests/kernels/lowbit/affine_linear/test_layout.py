"""Packing loses nothing, costs exactly its bits, and lies where README.md draws it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lowbit.affine_linear import num_words, pack, unpack


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("num_codes", [1, 7, 31, 32, 33, 172, 352])
def test_unpack_undoes_pack(bits: int, num_codes: int) -> None:
    codes = torch.randint(2**bits, (3, num_codes), dtype=torch.uint8)
    codes[0] = 2**bits - 1  # all bits set: words with the sign bit
    words = pack(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (3, -(-num_codes * bits // 32))
    assert torch.equal(unpack(words, bits, num_codes), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_row_is_one_little_endian_stream(bits: int) -> None:
    """An independent packer: each code as a string of bits, lowest first, cut into words."""
    codes = torch.randint(2**bits, (5, 45), dtype=torch.uint8)
    for row, words in zip(codes.tolist(), pack(codes, bits), strict=True):
        stream = "".join(f"{code:0{bits}b}"[::-1] for code in row)
        stream += "0" * (-len(stream) % 32)
        expected = [int(stream[i : i + 32][::-1], 2) for i in range(0, len(stream), 32)]
        assert words.numpy().astype(np.uint32).tolist() == expected


@pytest.mark.parametrize("bits", range(1, 9))
def test_thirty_two_codes_fill_whole_words(bits: int) -> None:
    assert num_words(32, bits) == bits
    assert num_words(4096, bits) * 32 == 4096 * bits


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 8 bits"):
        pack(torch.zeros(1, 8, dtype=torch.uint8), 9)
    with pytest.raises(ValueError, match="1 to 8 bits"):
        unpack(torch.zeros(1, 1, dtype=torch.int32), 0, 8)
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        pack(torch.tensor([[8]]), 3)
    with pytest.raises(ValueError, match="take 2 words; found 1"):
        unpack(torch.zeros(1, 1, dtype=torch.int32), 4, 9)
