"""A keyed permutation is a bijection, looks uniform, and says the same on every machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.permutation import key, permute


def _whole(n: int, k: int) -> np.ndarray:
    ones = np.ones(n, dtype=np.uint64)
    return permute(np.arange(n, dtype=np.uint64), ones * np.uint64(n), ones * np.uint64(k))


@pytest.mark.parametrize("n", [*range(1, 70), 100, 128, 129, 1000, 4095, 4096, 4097, 65_537])
def test_every_index_is_hit_once(n: int) -> None:
    assert sorted(_whole(n, key("bijection", n)).tolist()) == list(range(n))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_bijection_for_any_size_and_key(n: int, k: int) -> None:
    assert sorted(_whole(n, k).tolist()) == list(range(n))


def test_large_domains_need_no_memory_and_stay_inside() -> None:
    n = 10**15
    index = np.arange(n - 1000, n, dtype=np.uint64)
    places = permute(index, np.full(1000, n, np.uint64), np.full(1000, 7, np.uint64))
    assert places.max() < n
    assert len(set(places.tolist())) == 1000


def test_elements_of_different_permutations_do_not_mix() -> None:
    sizes, keys = np.array([5, 1000, 5, 77], np.uint64), np.array([1, 2, 3, 4], np.uint64)
    index = np.array([4, 999, 4, 0], np.uint64)
    alone = [int(permute(index[i : i + 1], sizes[i : i + 1], keys[i : i + 1])[0]) for i in range(4)]
    assert permute(index, sizes, keys).tolist() == alone


@pytest.mark.parametrize("n", [2, 3, 7, 16])
def test_every_place_is_equally_likely(n: int) -> None:
    """Chi-square over keys of where each index goes; 1e-6 is the chance that a fair shuffle fails."""
    from scipy.stats import chi2

    trials = 4000
    keys = np.array([key("uniform", i) for i in range(trials)], np.uint64).repeat(n)
    index = np.tile(np.arange(n, dtype=np.uint64), trials)
    places = permute(index, np.full(trials * n, n, np.uint64), keys)
    seen = np.zeros((n, n))
    np.add.at(seen, (index.astype(int), places.astype(int)), 1)
    statistic = ((seen - trials / n) ** 2 / (trials / n)).sum()
    assert statistic < chi2.ppf(1 - 1e-6, (n - 1) ** 2)


def test_neighbours_do_not_stay_neighbours() -> None:
    order = _whole(10_000, key("correlation")).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


def test_orders_are_the_same_for_ever() -> None:
    """A run that is resumed by a later version must see the same samples."""
    assert _whole(12, key(1, "source", "base", 0)).tolist() == [4, 10, 1, 6, 2, 0, 3, 9, 8, 7, 11, 5]
