"""Which windows a pass goes over, in which order, and how many passes there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workbench.data import TokenFile
from workbench.data.reading import pass_tokens, places, reader
from workbench.errors import DataError
from workbench.recipe.curricula import Reading

L = 16
Make = Callable[[str, int], TokenFile]


@pytest.fixture
def file(make_tokens: Make) -> TokenFile:
    return make_tokens("text", 60)


def passes(file: TokenFile, count: int, **reading: Any) -> list[list[int]]:
    source = reader("text", file, L, Reading(**reading), "repeat")
    found = places(7, [(source, sample) for sample in range(count * source.part)])
    assert [epoch for epoch, _ in found] == [e for e in range(count) for _ in range(source.part)]
    windows = [window for _, window in found]
    return [windows[i * source.part : (i + 1) * source.part] for i in range(count)]


def test_a_pass_goes_over_every_window_once_in_an_order_of_its_own(file: TokenFile) -> None:
    first, second = passes(file, 2)
    assert sorted(first) == sorted(second) == list(range(file.windows(L)))
    assert first != second and first != sorted(first)


def test_a_fixed_part_is_the_same_in_each_pass_and_shuffled_anew(file: TokenFile) -> None:
    one, two, three = passes(file, 3, tokens=20 * L)
    assert len(set(one)) == 20 and sorted(one) == sorted(two) == sorted(three)
    assert one != two != three
    assert max(one) >= 20  # not simply the beginning of the file


def test_a_dynamic_part_is_drawn_anew_in_each_pass(file: TokenFile) -> None:
    drawn = passes(file, 30, tokens=20 * L, resample="dynamic")
    assert all(len(set(one)) == 20 for one in drawn)
    assert len({frozenset(one) for one in drawn}) == 30
    assert set().union(*drawn) == set(range(file.windows(L)))


@pytest.mark.parametrize("order", ["easy-to-hard", "hard-to-easy"])
def test_an_ordered_source_is_read_as_it_stands(file: TokenFile, order: str) -> None:
    assert passes(file, 2, order=order) == [list(range(file.windows(L)))] * 2


def test_a_source_is_dry_after_its_passes_unless_it_starts_over(file: TokenFile) -> None:
    windows = file.windows(L)
    assert reader("text", file, L, Reading(), "repeat").limit is None
    assert reader("text", file, L, Reading(), "stop").limit == windows
    assert reader("text", file, L, Reading(epochs=2.5), "stop").limit == int(2.5 * windows)
    assert reader("text", file, L, Reading(tokens=10 * L, epochs=3), "redistribute").limit == 30


def test_tokens_of_a_pass_are_those_of_its_windows(file: TokenFile) -> None:
    assert pass_tokens({"text": file}, {"text": Reading(tokens=10 * L + 3)}, L) == {"text": 10 * L}
    assert pass_tokens({"text": file}, {}, L) == {"text": file.windows(L) * L}


@pytest.mark.parametrize("tokens", [L - 1, 10**6])
def test_a_part_that_the_source_does_not_hold_is_refused(file: TokenFile, tokens: int) -> None:
    with pytest.raises(DataError, match=rf"source text: reading.tokens {tokens} .* write 16 to \d+"):
        reader("text", file, L, Reading(tokens=tokens), "repeat")


def test_too_few_passes_for_one_sample_are_refused(file: TokenFile) -> None:
    with pytest.raises(DataError, match="less than one sample"):
        reader("text", file, L, Reading(epochs=1e-6), "stop")
