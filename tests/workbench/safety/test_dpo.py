"""TRL's loss is the paper's, its reference the start, and the signs of degeneration are told."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from workbench.data import NO_TARGET
from workbench.errors import NumericsError
from workbench.recipe.safety import Dpo
from workbench.safety.dpo import Limits, PairTrainer, Tracker, prefer, repetition
from workbench.training import log

BETA = 0.2


def log_p(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """log pi(y|x) of every row, and |y|."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, NO_TARGET)[:, 1:]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return -nats.sum(1), (labels != NO_TARGET).sum(1)


def swapped(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Chosen answers for rejected ones."""
    other = {"ref_chosen_logps": "ref_rejected_logps", "ref_rejected_logps": "ref_chosen_logps"}
    return {
        other.get(name, name): each if name in other else each.roll(len(each) // 2, 0)
        for name, each in batch.items()
    }


@pytest.mark.parametrize("anchor", [0.0, 0.3])
def test_the_loss_is_that_of_the_paper_at_every_step(
    course: Callable[..., Any],
    tiny: Callable[[], LlamaForCausalLM],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    anchor: float,
) -> None:
    model, start = tiny(), tiny()
    plain, margins = PairTrainer.compute_loss, []

    def checked(self: PairTrainer, policy: Any, batch: dict[str, Tensor], *rest: Any, **named: Any) -> Tensor:
        metrics = self._metrics["train"]
        with torch.no_grad():
            (w, l), (tokens, _) = (each.chunk(2) for each in log_p(model, batch))  # noqa: E741
            w_ref, l_ref = log_p(start, batch)[0].chunk(2)
            torch.testing.assert_close(batch["ref_chosen_logps"], w_ref, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(batch["ref_rejected_logps"], l_ref, rtol=1e-5, atol=1e-4)
            margin = BETA * ((w - w_ref) - (l - l_ref))
            by_hand = -margin.sigmoid().log().mean() - anchor * w.sum() / tokens.sum()
            other = plain(self, policy, swapped(batch), *rest, **named)
            assert metrics["rewards/margins"].pop() == pytest.approx(-float(margin.mean()), abs=1e-4)
            if not anchor:  # log sigma(x) - log sigma(-x) = x
                assert float(other - by_hand) == pytest.approx(float(margin.mean()), abs=1e-4)
        loss: Tensor = plain(self, policy, batch, *rest, **named)
        assert float(loss.detach()) == pytest.approx(float(by_hand), rel=1e-4)
        assert metrics["rewards/chosen"][-1] == pytest.approx(BETA * float((w - w_ref).mean()), abs=1e-4)
        margins.append(float(margin.mean()))
        if not anchor and len(margins) == 1:  # policy and reference agree
            assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)
        return loss

    monkeypatch.setattr(PairTrainer, "compute_loss", checked)
    prefer(model, tokenizer, course(tmp_path, steps=3), Dpo(beta=BETA, anchor=anchor))
    assert len(margins) == 3 and margins[0] == pytest.approx(0, abs=1e-5) and margins[2] > 0.05


def test_a_training_prefers_what_is_right_tells_alarms_once_and_leaves_no_trace(
    course: Callable[..., Any],
    tiny: Callable[[], LlamaForCausalLM],
    tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, made, beta = tiny(), course(tmp_path, steps=16, rate=0.1), 2.0
    config, marks = copy.deepcopy(model.config.to_dict()), dict(tokenizer.special_tokens_map)
    outcome = prefer(model, tokenizer, made, Dpo(beta=beta))
    rows = log.read(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 17))
    assert rows[-1]["rewards/accuracies"] == 1.0
    assert [row["step"] for row in rows if "repetition" in row] == [4, 8, 12, 16]
    assert sum("the margin explodes" in said for said in outcome.told) == 1
    assert "toy: step" in capsys.readouterr().err
    assert model.config.to_dict() == config and dict(tokenizer.special_tokens_map) == marks
    assert "forward" not in vars(model) and not model.training


def test_repetition_counts_what_was_said_before() -> None:
    assert repetition([1, 2, 3, 4, 5, 6]) == 0
    assert repetition([7] * 13) == 0.9  # ten 4-grams, one of them new
    assert repetition([1, 2, 3]) == repetition([]) == 0


def run(tracker: Tracker, steps: int, **values: float) -> tuple[Tracker, list[str]]:
    raised = []
    for step in range(steps):
        tracker, alarms = tracker.after(step, **{"chosen": 0.0, "margin": 0.0, **values})
        raised += [alarm.sign for alarm in alarms]
    return tracker, raised


def test_a_healthy_training_raises_nothing() -> None:
    _, raised = run(Tracker(), 200, chosen=-0.1, margin=3.0, repeated=0.1)
    assert raised == []


@pytest.mark.parametrize(
    ("values", "sign"),
    [
        ({"chosen": -0.8}, "the chosen answers become unlikely"),
        ({"margin": 12.0}, "the margin explodes"),
        ({"repeated": 0.6}, "the answers repeat themselves"),
    ],
)
def test_each_sign_is_told_once(values: dict[str, float], sign: str) -> None:
    tracker, quiet = run(Tracker(), 20)
    assert quiet == []
    tracker, raised = run(tracker, 60, **values)
    assert raised == [sign]
    tracker, quiet = run(tracker, 60, **dict.fromkeys(values, 0.0))
    assert quiet == run(tracker, 60, **values)[1] == []


def test_one_bad_batch_is_no_alarm() -> None:
    tracker, _ = run(Tracker(Limits(smoothing=0.9)), 20)
    assert run(tracker, 1, chosen=-3.0, margin=50.0)[1] == []


def test_an_alarm_says_what_was_found_against_what_is_allowed() -> None:
    _, alarms = Tracker().after(7, -2.0, 0.0)
    assert str(alarms[0]) == "step 7: the chosen answers become unlikely, 2 against at most 0.693"


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(NumericsError, match="step 3: margin is nan"):
        Tracker().after(3, 0.0, math.nan)
