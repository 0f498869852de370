"""Conclusions follow from the losses: the best share, and the power law through three of them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from workbench import cli
from workbench.run import worth
from workbench.run.surrogate import Losses, Part
from workbench.run.worth import Advice, Estimate, Worth, extrapolated, resampled, sentence, tables

TOKENS, PLANNED = 1_000_000, 100_000_000


def losses(nats: list[float]) -> Losses:
    return Losses(np.array(nats), np.full(len(nats), 10.0), np.full(len(nats), 40.0))


def part(name: str, weight: float, *, old: bool = False) -> Part:
    held = SimpleNamespace(num_tokens=120, num_bytes=480)
    return Part(name, old, weight, cast(Any, held), cast(Any, None), 100)


def power_law(beta: float, amplitude: float) -> tuple[np.ndarray, float]:
    """Losses at a quarter, a half and all of the tokens, and that at those planned."""
    at = [1.5 + amplitude * (t / TOKENS) ** -beta for t in (TOKENS / 4, TOKENS / 2, TOKENS, PLANNED)]
    return np.array([at[:3]]), at[3]


@pytest.mark.parametrize(("beta", "amplitude"), [(0.3, 1.0), (0.7, 0.4), (1.5, 2.0)])
def test_a_power_law_is_found_again(beta: float, amplitude: float) -> None:
    course, planned = power_law(beta, amplitude)
    budget, gain = extrapolated(course, TOKENS, PLANNED)
    assert gain[0] == pytest.approx(course[0, 2] - planned, rel=1e-9)
    if math.isfinite(budget[0]):
        at = amplitude * (budget[0] / TOKENS) ** -beta
        before = amplitude * (budget[0] / 2 / TOKENS) ** -beta
        assert before - at == pytest.approx(worth.FAINT, rel=1e-9)
    else:
        end = amplitude * (worth.FARTHEST * PLANNED / TOKENS) ** -beta
        assert end * (2**beta - 1) > worth.FAINT


def test_what_does_not_shrink_has_no_end_and_what_is_faint_has_ended() -> None:
    course = np.array([[3.0, 2.5, 2.0], [3.0, 2.9, 2.0], [2.0, 2.1, 2.2], [2.0, 1.9, 1.895]])
    budget, gain = extrapolated(course, TOKENS, PLANNED)
    assert np.isinf(budget[:2]).all() and budget[2:].tolist() == [TOKENS, TOKENS]
    assert gain[0] == pytest.approx(0.5 * math.log2(100)) and gain[2] == 0 <= gain[3]


def test_the_first_row_is_as_measured_and_draws_are_paired() -> None:
    parts = [part("a", 0.25), part("b", 0.75), part("c", 1.0, old=True)]
    run = [losses([10.0, 30.0, 50.0]), losses([20.0, 20.0, 80.0]), losses([5.0])]
    worse = [Losses(each.nats + 5.0, each.tokens, each.sizes) for each in run]
    drawn = resampled(parts, [run, worse], old=False, seed=1)
    assert drawn[0].tolist() == pytest.approx([0.25 * 3.0 + 0.75 * 4.0, 0.25 * 3.5 + 0.75 * 4.5])
    assert drawn.shape == (1 + worth.DRAWS, 2) and drawn[1:, 0].std() > 0.1
    assert np.allclose(drawn[:, 1] - drawn[:, 0], 0.5)  # the same windows for both
    assert np.allclose(resampled(parts, [run], old=True, seed=1), 0.5)


def found(**changes: Any) -> Worth:
    advice = Advice(0.1, 0.97, Estimate(-0.4, -0.5, -0.3), Estimate(0.05, 0.04, 0.06),
                    Estimate(2e8, 1e8, math.inf), Estimate(-0.9, -1.0, -0.8))  # fmt: skip
    ratios = {ratio: (Estimate(-0.4, -0.5, -0.3), Estimate(0.05, 0.04, 0.06)) for ratio in worth.RATIOS}
    advice = Advice(**{**advice.__dict__, **changes})
    return Worth([part("a", 1.0)], [losses([20.0, 30.0])], ratios, TOKENS, PLANNED, advice)


def test_the_sentence_says_what_to_do_and_how_sure_it_is() -> None:
    said = sentence(found())
    assert "Mix in 10% of old text (the best share in 97% of resamples" in said
    assert "from about 200M on (100M to more than can be foreseen); the recipe plans 100M" in said
    assert "largest share" not in said
    assert "largest share that was tried" in sentence(found(ratio=max(worth.RATIOS)))
    endless = sentence(found(budget=Estimate(math.inf, 1e9, math.inf)))
    assert "does not shrink fast enough to foresee" in endless and "about" not in endless
    assert sentence(found(new=Estimate(-0.1, -0.3, 0.1))).startswith("Not worth it as it stands")


def test_tables_show_every_source_and_every_share() -> None:
    known, ratios = tables(found())
    assert known.row_count == 1 and ratios.row_count == len(worth.RATIOS)
    assert [next(iter(column.cells)) for column in known.columns] == [
        "a",
        "new",
        "12.2",
        "0.902",
        "1.20",
        "4.00",
    ]


RECIPE = """\
name: small
description: is it worth it
model: {{path: {model}}}
data: {{old: {{miniworld: base}}, new: {{miniworld: new}}}}
stages:
  - {{kind: cpt, methods: [full], mixture: {{new: 1.0}},
     replay: {{ratio: 0.5, mixture: {{old: 1.0}}}}, tokens: 65536,
     batch_size: 8, sequence_length: 32, learning_rate: 1e-2}}
"""


def test_the_command_shows_findings_and_recommendation(
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("workbench.run.surrogate.LEAST_STEPS", 4)
    monkeypatch.setattr("workbench.run.surrogate.WINDOWS", 8)
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(model=tiny_model_folder))
    with pytest.raises(SystemExit) as left:
        cli.main(["--runs", str(tmp_path / "runs"), "plan", str(path), "--probe"])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert "bits/byte" in shown and "30%" in shown and "Mix in " in shown
