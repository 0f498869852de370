"""The packing of 1- to 8-bit codes into 32-bit words, along the last axis (drawn in README.md).

A code is cut into fields of 4, 2 or 1 bits, its planes: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1,
8 = 4 + 4, the low bits in the first. A row is cut into periods of 128 codes, and what is left of it into
periods of 32; a period holds its planes one after the other. A plane of p bits takes p words for every
32 codes; in a period where it takes S words, code

    k = 2 S i + 2 w + h        (h = 0, 1;  w = 0 .. S-1;  i = 0 .. 16/p - 1)

lies in word w, half h of it, slot i of the half, bits 16 h + p i upwards. So one shift and one mask of
a word give two neighbouring codes, each at the foot of a half word, and the halves of S words are 2 S codes
in their order: a kernel reads a word once and x as it lies in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

WORD = 32
PERIOD = 128

# bits -> (width, shift) of the planes: field = code >> shift & (2**width - 1)
PLANES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((1, 0),),
    2: ((2, 0),),
    3: ((2, 0), (1, 2)),
    4: ((4, 0),),
    5: ((4, 0), (1, 4)),
    6: ((4, 0), (2, 4)),
    7: ((4, 0), (2, 4), (1, 6)),
    8: ((4, 0), (4, 4)),
}


def num_words(num_codes: int, bits: int) -> int:
    """32-bit words that a row of `num_codes` codes takes: `bits` for every 32 codes begun.

    A row of a multiple of 32 codes has no unused bits; another is filled with codes 0 up to one.
    """
    return bits * -(-num_codes // WORD)


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
        Words [..., bits * ceil(n / 32)], int32; unused bits are 0.

    Raises:
        ValueError: bits outside 1 to 8, or a code that does not fit.
    """
    check_bits(bits)
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits:
        raise ValueError(f"codes from {int(codes.min())} to {int(codes.max())} do not fit {bits} bits")
    padded = pad(codes.to(torch.uint8), (0, -codes.shape[-1] % WORD))
    whole = padded.shape[-1] // PERIOD * PERIOD
    wide, narrow = padded[..., :whole], padded[..., whole:]
    parts = [_pack_periods(wide, bits, PERIOD), _pack_periods(narrow, bits, WORD)]
    return torch.cat(parts, -1)


def unpack(words: Tensor, bits: int, num_codes: int) -> Tensor:
    """Undo `pack`.

    Args:
        words: [..., bits * ceil(num_codes / 32)], int32.
        bits: width of a code, 1 to 8.
        num_codes: codes in a row.

    Returns:
        Codes [..., num_codes], uint8.

    Raises:
        ValueError: bits outside 1 to 8, or another number of words.
    """
    check_bits(bits)
    if words.shape[-1] != num_words(num_codes, bits):
        expected = num_words(num_codes, bits)
        raise ValueError(f"{num_codes} codes of {bits} bits take {expected} words; found {words.shape[-1]}")
    whole = words.shape[-1] // (bits * PERIOD // WORD) * (bits * PERIOD // WORD)
    wide, narrow = words[..., :whole], words[..., whole:]
    parts = [_unpack_periods(wide, bits, PERIOD), _unpack_periods(narrow, bits, WORD)]
    return torch.cat(parts, -1)[..., :num_codes].contiguous()


def check_bits(bits: int) -> None:
    """Refuse widths that the packing does not have.

    Raises:
        ValueError: bits outside 1 to 8.
    """
    if bits not in PLANES:
        raise ValueError(f"bits {bits} is not supported; codes have 1 to 8 bits")


def _pack_periods(codes: Tensor, bits: int, period: int) -> Tensor:
    """Words [..., n * bits / 32] of codes [..., n], n a multiple of the period."""
    periods = codes.unflatten(-1, (codes.shape[-1] // period, period))
    planes = []
    for width, shift in PLANES[bits]:
        slots = 16 // width
        fields = (periods >> shift & (1 << width) - 1).int()
        fields = fields.unflatten(-1, (slots, period // (2 * slots), 2))  # [..., slots, words, halves]
        word = torch.zeros_like(fields[..., 0, :, 0])
        for i in range(slots):
            word |= fields[..., i, :, 0] << width * i | fields[..., i, :, 1] << 16 + width * i
        planes.append(word)
    return torch.cat(planes, -1).flatten(-2)


def _unpack_periods(words: Tensor, bits: int, period: int) -> Tensor:
    """Codes [..., n], uint8, of words [..., n * bits / 32], n a multiple of the period."""
    size = bits * period // WORD
    periods = words.unflatten(-1, (words.shape[-1] // size, size))
    codes = torch.zeros(*periods.shape[:-1], period, dtype=torch.uint8, device=words.device)
    for (width, shift), plane in zip(PLANES[bits], _planes(periods, bits, period), strict=True):
        slots = 16 // width
        shifts = width * torch.arange(slots, dtype=torch.int32, device=words.device)[:, None, None]
        shifts = shifts + 16 * torch.arange(2, dtype=torch.int32, device=words.device)
        # the shift of a negative word brings ones, which the mask removes
        fields = plane[..., None, :, None] >> shifts & (1 << width) - 1  # [..., slots, words, halves]
        codes |= fields.to(torch.uint8).flatten(-3) << shift
    return codes.flatten(-2)


def _planes(periods: Tensor, bits: int, period: int) -> tuple[Tensor, ...]:
    """The words [..., S] of each plane of periods [..., bits * period / 32]."""
    sizes = [width * period // WORD for width, _ in PLANES[bits]]
    planes: tuple[Tensor, ...] = periods.split(sizes, -1)
    return planes
