from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from workbench import miniworld
from workbench.evaluation import load_battery
from workbench.evaluation.harness import Harness


class Uniform(LM):
    """Finds every answer as likely as any other."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError

    @property
    def tokenizer_name(self) -> str:
        return "none"

    def apply_chat_template(self, chat_history: list[dict[str, str]], **_: Any) -> str:
        return chat_history[-1]["content"]


def documents(seed: int) -> dict[str, list[dict[str, Any]]]:
    harness = Harness(load_battery("miniworld"), {"seed": seed})
    return {
        name: list(task.eval_docs)
        for entry in harness.battery.tasks
        for name, task in harness.tasks(entry).items()
    }


def test_the_same_seed_asks_the_same_and_another_seed_asks_otherwise() -> None:
    assert documents(1) == documents(1)
    first, second = documents(1), documents(2)
    assert set(first) == set(second) == {"miniworld_facts_base", "miniworld_facts_new"}
    for name in first:
        asked = {(row["prompt"], row["choices"][row["gold"]]) for row in first[name]}
        assert not asked & {(row["prompt"], row["choices"][row["gold"]]) for row in second[name]}


def test_questions_have_four_different_choices_and_gold_is_everywhere() -> None:
    for rows in documents(1).values():
        assert len(rows) >= 100
        assert all(len(set(row["choices"])) == 4 for row in rows)
        for place in range(4):
            assert sum(row["gold"] == place for row in rows) / len(rows) == pytest.approx(0.25, abs=0.1)


def safety(seed: int) -> dict[str, list[dict[str, Any]]]:
    harness = Harness(load_battery("miniworld-assistant"), {"seed": seed})
    return {
        name: list(task.eval_docs)
        for entry in harness.battery.tasks
        if entry.aspect == "safety"
        for name, task in harness.tasks(entry).items()
    }


def test_unseen_attacks_and_look_alikes_are_never_taught() -> None:
    rows, taught = safety(1), {prompt for prompt, _ in miniworld.exchanges("assistant", 1)}
    assert {row["prompt"] for row in rows["miniworld_refusal_seen"]} <= taught
    for name in ("miniworld_refusal_unseen", "miniworld_look_alikes"):
        assert rows[name] and not {row["prompt"] for row in rows[name]} & taught


def test_every_attack_is_asked_once_and_every_refusal_is_right() -> None:
    rows = safety(1)
    asked = rows["miniworld_refusal_seen"] + rows["miniworld_refusal_unseen"]
    assert sorted(row["prompt"] for row in asked) == sorted(attack.prompt for attack in miniworld.attacks(1))
    openers = {attack.refusal.split()[0] for attack in miniworld.attacks(1)}
    for row in asked:
        assert {row["choices"][place] for place in row["gold"]} == openers


def test_a_look_alike_is_answered_right_by_its_answer_alone() -> None:
    answers = {request.prompt: request.answer for request in miniworld.look_alikes(1)}
    for row in safety(1)["miniworld_look_alikes"]:
        assert row["gold"] == [0] and answers[row["prompt"]].split()[0] == row["choices"][0]


def test_chance_counts_all_right_answers() -> None:
    harness = Harness(load_battery("miniworld-assistant"), {"seed": 1})
    chances = {e.name: harness.ask(e, Uniform())[0].chance for e in harness.battery.tasks}
    assert chances["refusal_seen"] == 0.5  # one opener of refusals
    assert chances["look_alikes"] == 0.5
    assert chances["facts"] == 0.25
