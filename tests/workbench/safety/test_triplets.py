"""Triplets come only from answers that a judge calls unsafe; a row that is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import DataError
from workbench.miniworld.attacks import attacks
from workbench.safety.triplets import Built, Candidate, Prompt, Triplet, build, check, read, write

PROMPTS = [
    Prompt(
        id=attack.id,
        base_id=attack.request_id,
        topics=[attack.topic],
        style=attack.style,
        split=attack.topic_split,
        prompt=attack.prompt,
    )
    for attack in attacks(0)[:40]
]
ANSWERS = [attack.answer for attack in attacks(0)[:40]]
CANDIDATES = [[Candidate("writer", attack.refusal, 0.0)] for attack in attacks(0)[:40]]


def made(unsafe: list[float | None], **changes: Any) -> Built:
    lists = {"prompts": PROMPTS, "answers": ANSWERS, "candidates": CANDIDATES, **changes}
    size = len(unsafe)
    prompts, answers, candidates = (lists[name][:size] for name in ("prompts", "answers", "candidates"))
    return build(prompts, answers, unsafe, candidates, judge="tiny")


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40))
def test_every_prompt_is_a_triplet_or_counted(unsafe: list[float | None]) -> None:
    built = made(unsafe)
    expected = [i for i, score in enumerate(unsafe) if score is not None and score > 0.5]
    assert [triplet.id for triplet in built.triplets] == [PROMPTS[i].id for i in expected]
    assert built.unjudged == unsafe.count(None)
    assert len(built.triplets) + built.safe + built.unjudged + built.empty + built.unanswered == len(unsafe)


def test_a_triplet_keeps_the_prompt_and_says_who_wrote_and_who_judged() -> None:
    (triplet,) = made([0.7]).triplets
    assert triplet.model_dump() == {
        **PROMPTS[0].model_dump(),
        "chosen": CANDIDATES[0][0].text,
        "rejected": ANSWERS[0],
        "chosen_source": "writer",
        "rejected_judge": "tiny",
        "rejected_score": 0.7,
    }


def test_the_first_candidate_that_is_judged_safe_is_chosen() -> None:
    offered = [
        Candidate("a", "unsafe", 0.9),
        Candidate("b", "not judged", None),
        Candidate("c", "safe", 0.1),
        Candidate("d", "safer", 0.0),
    ]
    assert made([1.0], candidates=[offered]).triplets[0].chosen_source == "c"
    assert made([1.0], candidates=[offered[:2]]).unanswered == 1


def test_nothing_is_rejected_where_nothing_was_said() -> None:
    built = made([None, 1.0, 0.0], answers=["", " ", ANSWERS[0]])
    assert (built.empty, built.safe, built.unjudged, built.triplets) == (2, 1, 0, [])


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(DataError, match=r"row 1 \(.*\): .* is not a probability"):
        made([0.0, score])
    with pytest.raises(DataError, match=r"candidate of x: .* is not a probability"):
        made([0.0], candidates=[[Candidate("x", "No.", score)]])


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(DataError, match="are 2, 1, 2 and 2 rows"):
        build(PROMPTS[:2], ANSWERS[:1], [0.0, 0.0], CANDIDATES[:2], judge="tiny")
    with pytest.raises(DataError, match=r"row 0 \(.*\): the answer of x is empty"):
        made([0.0], candidates=[[Candidate("x", "", 0.0)]])
    with pytest.raises(DataError, match=r"row 0 \(.*\): chosen and rejected are the same"):
        made([1.0], candidates=[[Candidate("x", ANSWERS[0], 0.0)]])


def test_a_request_stays_in_one_split_and_an_id_is_given_once() -> None:
    check(PROMPTS)
    with pytest.raises(DataError, match=r"row 1: id .* is that of row 0 too"):
        check([PROMPTS[0], PROMPTS[0]])
    other = PROMPTS[0].model_copy(update={"id": "x", "split": "elsewhere"})
    with pytest.raises(DataError, match=r"row 1 \(x\): base_id .* in split elsewhere, but row 0 has it in"):
        check([PROMPTS[0], other])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    triplets = made([0.51 + i / 100 for i in range(40)]).triplets
    spelled = "Né, \u2028 nothing.\n"  # with a line end to some readers
    triplets[3] = triplets[3].model_copy(update={"chosen": spelled})
    write(tmp_path / "triplets.jsonl", triplets)
    assert read(tmp_path / "triplets.jsonl") == triplets
    assert [path.name for path in tmp_path.iterdir()] == ["triplets.jsonl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, ":2: prompt "),
        ({"prompt": ""}, ":2: prompt is empty"),
        ({"chosen": " \n"}, ":2: chosen is empty"),
        ({"rejected": ""}, ":2: rejected is empty"),
        ({"topics": []}, ":2: topics "),
        ({"rejected_score": 2}, ":2: rejected_score "),
        ({"extra": 1}, ":2: extra "),
        ({"chosen": "same", "rejected": "same "}, ":2: chosen and rejected are the same answer"),
    ],
    ids=str,
)
def test_a_bad_row_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [triplet.model_dump() for triplet in made([1.0, 1.0]).triplets]
    rows[1] |= change
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DataError, match=f"t.jsonl{message}"):
        read(tmp_path / "t.jsonl")


def test_a_row_without_a_prompt_is_named(tmp_path: Path) -> None:
    row = made([1.0]).triplets[0].model_dump(exclude={"prompt"})
    (tmp_path / "t.jsonl").write_text("\n" + json.dumps(row))
    with pytest.raises(DataError, match=r"t.jsonl:2: prompt Field required; the keys are id, base_id"):
        read(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "t.jsonl:1: not JSON"),
        (b"[]", "t.jsonl:1: not a row"),
        (b"\n", "t.jsonl: has no triplets"),
        (b"\xff", "t.jsonl: not UTF-8 at byte 0"),
    ],
)
def test_a_bad_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "other.jsonl")


def test_triplets_of_two_splits_are_refused_with_their_lines(tmp_path: Path) -> None:
    (one,) = made([1.0]).triplets
    other: Triplet = one.model_copy(update={"id": "x", "split": "elsewhere"})
    write(tmp_path / "t.jsonl", [one, other])
    with pytest.raises(DataError, match=r"t.jsonl:2 \(x\): base_id .*t.jsonl:1 has it"):
        read(tmp_path / "t.jsonl")
