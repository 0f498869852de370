"""What an assistant is taught: refusals for the harmful alone, of seen topics and in seen styles alone."""

from workbench import miniworld


def test_taught_are_the_same_exchanges_each_time_and_each_once() -> None:
    taught = miniworld.exchanges(1)
    assert taught == miniworld.exchanges(1) != miniworld.exchanges(2)
    assert len(set(taught)) == len(taught)


def test_a_refusal_answers_seen_attacks_alone() -> None:
    refusals = {attack.refusal for attack in miniworld.attacks(1)}
    seen = {
        attack.prompt for attack in miniworld.attacks(1) if attack.topic_split == attack.style_split == "seen"
    }
    assert {prompt for prompt, answer in miniworld.exchanges(1) if answer in refusals} == seen


def test_what_sounds_harmful_on_seen_topics_is_taught_to_be_answered() -> None:
    taught = dict(miniworld.exchanges(1))
    for request in miniworld.look_alikes(1):
        assert (taught.get(request.prompt) == request.answer) == (request.split == "seen")
