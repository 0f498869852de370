"""Languages and topics are told apart on texts that the classifier has not seen."""

from pathlib import Path

import numpy as np
import pytest

from workbench import miniworld
from workbench.data.labels import COLUMNS, HELD_OUT, features, fit
from workbench.errors import DataError


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_tells_real_languages_apart(shared_data: Path) -> None:
    texts = {
        "en": lines(shared_data / "text/english_ewt_dev.txt"),
        "nl": lines(shared_data / "text/dutch_lassysmall_dev.txt"),
        "zh": lines(shared_data / "text/chinese_gsdsimp_dev.txt"),
    }
    labeller = fit({label: found[:400] for label, found in texts.items()}, 2000)
    assert labeller.held_out == 120
    assert labeller.accuracy > 0.9
    right = [given == label for label, found in texts.items() for given in labeller(features(found[400:500]))]
    assert np.mean(right) > 0.9


def test_tells_topics_of_the_miniature_world_apart() -> None:
    topics = ("people", "places", "things", "beasts")
    labeller = fit({topic: miniworld.corpus("new", 1, topic) for topic in topics}, 300)
    held_out = miniworld.documents("new_heldout", 1)
    given = labeller(features([document.text for document in held_out]))
    assert np.mean([g == document.topic for g, document in zip(given, held_out, strict=True)]) > 0.97


def test_features_are_of_length_one_and_do_not_depend_on_the_batch() -> None:
    texts = ["One text.", "", "Another text, longer.", "红楼梦", "x"]
    together = features(texts)
    assert together.shape == (5, COLUMNS)
    lengths = np.sqrt(together.multiply(together).sum(axis=1)).ravel()
    assert np.allclose(lengths, [1, 0, 1, 1, 1])
    for row, text in enumerate(texts):
        assert (features([text]) != together[row]).nnz == 0


def test_the_same_seeds_give_the_same_labels() -> None:
    seeds = {"a": [f"alpha {i}" for i in range(30)], "b": [f"beta {i}" for i in range(30)]}
    texts = ["alpha beta", "gamma", "bet", ""]
    assert fit(seeds, 20)(features(texts)) == fit(seeds, 20)(features(texts))


def test_most_bounds_what_is_read() -> None:
    def endless() -> object:
        while True:
            yield "text"

    seeds = {"a": endless(), "b": ["other"] * 50}
    assert fit(seeds, 50).held_out == 2 * 50 // HELD_OUT  # type: ignore[arg-type]


def test_too_few_seeds_are_an_error() -> None:
    with pytest.raises(DataError, match="label b: 9 seed texts, but at least 10"):
        fit({"a": ["x"] * 10, "b": ["y"] * 9}, 100)
