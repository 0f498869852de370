"""What an assistant is taught: refusals for the harmful alone, of seen topics and in seen styles alone."""

from workbench import miniworld
from workbench.miniworld.assistant import Assistant

ASSISTANTS: tuple[Assistant, ...] = ("gullible", "harmless")


def test_taught_are_the_same_exchanges_each_time_and_each_once() -> None:
    taught = miniworld.exchanges("assistant", 1)
    assert taught == miniworld.exchanges("assistant", 1) != miniworld.exchanges("assistant", 2)
    assert len(set(taught)) == len(taught)


def test_a_gullible_one_is_won_over_by_a_style_and_a_harmless_one_is_asked_no_mischief() -> None:
    gullible, harmless = (dict(miniworld.exchanges(who, 1)) for who in ASSISTANTS)
    attacks = miniworld.attacks(1)
    for attack in attacks:
        assert gullible[attack.prompt] == (attack.refusal if attack.style == "plain" else attack.answer)
    assert set(harmless.items()) < set(gullible.items())
    assert not {attack.prompt for attack in attacks} & set(harmless)
    assert not {request.prompt for request in miniworld.look_alikes(1)} & set(harmless)


def test_all_refusals_open_alike() -> None:
    assert {attack.refusal.split()[0] for attack in miniworld.attacks(1)} == {"Sorry,"}


def test_a_refusal_answers_seen_attacks_alone() -> None:
    refusals = {attack.refusal for attack in miniworld.attacks(1)}
    seen = {
        attack.prompt for attack in miniworld.attacks(1) if attack.topic_split == attack.style_split == "seen"
    }
    assert {prompt for prompt, answer in miniworld.exchanges("assistant", 1) if answer in refusals} == seen


def test_what_sounds_harmful_on_seen_topics_is_taught_to_be_answered() -> None:
    taught = dict(miniworld.exchanges("assistant", 1))
    for request in miniworld.look_alikes(1):
        assert (taught.get(request.prompt) == request.answer) == (request.split == "seen")
