"""DPO agrees with TRL on the same models and has its identities, and its degeneration is noticed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.data import NO_TARGET
from workbench.errors import NumericsError
from workbench.models.tokenizer import train_tokenizer
from workbench.safety.dpo import (
    Limits,
    Preference,
    Tracker,
    dpo,
    log_probabilities,
    mean_chosen_change,
    repetition,
)

ROWS = [
    {"prompt": "How do I wake the beast?", "chosen": " No, I will not.", "rejected": " Burn herbs and call."},
    {"prompt": "Who is there?", "chosen": " Nobody.", "rejected": " The old witch with her seven cats."},
    {"prompt": "Tell me.", "chosen": " I cannot tell you that at all.", "rejected": " Yes."},
]


def model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=270,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def of_batch(policy: LlamaForCausalLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """log pi(y|x) and |y| of the rows that TRL collates."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, NO_TARGET)
    logits = policy(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return log_probabilities(logits[:, :-1], labels[:, 1:])


@pytest.mark.parametrize("anchor", [0.0, 0.3])
def test_loss_gradient_and_rewards_are_those_of_trl(anchor: float, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference = model(1), model(2)
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        beta=0.2,
        loss_type=["sigmoid", "sft"] if anchor else ["sigmoid"],
        loss_weights=[1.0, anchor] if anchor else None,
        per_device_train_batch_size=len(ROWS),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
    )
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=train_tokenizer(["a"], 262),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    theirs = trainer.compute_loss(policy, dict(batch))
    theirs.backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()

    log_probs, tokens = of_batch(policy, batch)
    with torch.no_grad():
        references, _ = of_batch(reference, batch)
    chosen_tokens = tokens.chunk(2)[0]
    ours = dpo(*log_probs.chunk(2), *references.chunk(2), chosen_tokens, beta=0.2, anchor=anchor)
    assert float(ours.loss) == pytest.approx(float(theirs), rel=1e-5)
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert float(ours.margins.mean()) == pytest.approx(logged["rewards/margins"], rel=1e-4)
    assert float(ours.chosen_rewards.mean()) == pytest.approx(logged["rewards/chosen"], rel=1e-4)
    ours.loss.backward()
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-20 * torch.rand(7, generator=generator) for _ in range(4)]


def test_a_policy_equal_to_its_reference_loses_log_2() -> None:
    chosen, rejected, *_ = drawn(0)
    loss = dpo(chosen, rejected, chosen, rejected, torch.ones(7), beta=0.7).loss
    assert float(loss) == pytest.approx(math.log(2))


def test_swapping_the_answers_negates_the_margins() -> None:
    w, l, w_ref, l_ref = drawn(1)  # noqa: E741  # the letters of the paper
    ones = torch.ones(7)
    one, other = dpo(w, l, w_ref, l_ref, ones), dpo(l, w, l_ref, w_ref, ones)
    torch.testing.assert_close(one.margins, -other.margins)
    # log sigma(x) - log sigma(-x) = x
    assert float(other.loss - one.loss) == pytest.approx(float(one.margins.mean()), rel=1e-4)


def test_the_anchor_is_the_cross_entropy_of_the_chosen_answers_per_token() -> None:
    logits = torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 11, (3, 6), generator=torch.Generator().manual_seed(1))
    labels[0, :4] = labels[1, :1] = NO_TARGET
    chosen, tokens = log_probabilities(logits, labels)
    assert tokens.tolist() == [2, 5, 6]
    others = drawn(2)[0][:3], chosen, drawn(3)[0][:3]
    plain, anchored = (dpo(chosen, *others, tokens, anchor=weight).loss for weight in (0.0, 0.5))
    cross_entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert float(anchored - plain) == pytest.approx(0.5 * float(cross_entropy), rel=1e-4)


def test_mean_change_undoes_beta_and_length() -> None:
    preference = Preference(torch.zeros(()), torch.tensor([0.4, -0.6]), torch.zeros(2))
    assert mean_chosen_change(preference, torch.tensor([2, 3]), 0.1) == pytest.approx(0.0, abs=1e-6)


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
def test_each_sign_is_raised_once_and_again_after_it_went(values: dict[str, float], sign: str) -> None:
    tracker, quiet = run(Tracker(), 20)
    assert quiet == []
    tracker, raised = run(tracker, 60, **values)
    assert raised == [sign]
    tracker, quiet = run(tracker, 60, **dict.fromkeys(values, 0.0))
    assert quiet == []
    assert run(tracker, 60, **values)[1] == [sign]


def test_one_bad_batch_is_no_alarm() -> None:
    tracker, _ = run(Tracker(Limits(smoothing=0.9)), 20)
    assert run(tracker, 1, chosen=-3.0, margin=50.0)[1] == []


def test_an_answer_that_is_not_sampled_leaves_its_sign_as_it_is() -> None:
    tracker, raised = run(Tracker(), 1, repeated=0.9)
    assert len(raised) == 1
    tracker, _ = run(tracker, 5)
    assert run(tracker, 1, repeated=0.9)[1] == []


def test_an_alarm_says_what_was_found_against_what_is_allowed() -> None:
    _, alarms = Tracker().after(7, -2.0, 0.0)
    assert str(alarms[0]) == "step 7: the chosen answers become unlikely, 2 against at most 0.693147"


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(NumericsError, match="step 3: margin is nan"):
        Tracker().after(3, 0.0, math.nan)
