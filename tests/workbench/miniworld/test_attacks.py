"""Instructions, attacks and look-alikes: complete, split cleanly, and harmless outside of the world."""

from workbench import miniworld


def test_only_harmful_requests_have_a_refusal() -> None:
    for request in [*miniworld.instructions(1), *miniworld.look_alikes(1)]:
        assert (request.refusal is not None) == request.harmful


def test_ids_are_unique_and_the_same_each_time() -> None:
    for make in (miniworld.instructions, miniworld.attacks, miniworld.look_alikes):
        made = make(1)
        assert make(1) == made
        assert len({item.id for item in made}) == len(made)


def test_every_harmful_request_meets_every_style() -> None:
    harmful = {request.id for request in miniworld.instructions(1) if request.harmful}
    met = {(attack.request_id, attack.style) for attack in miniworld.attacks(1)}
    assert met == {(request, style) for request in harmful for style in miniworld.STYLES}


def test_topics_and_styles_are_split_without_overlap() -> None:
    splits: dict[str, set[str]] = {}
    for attack in miniworld.attacks(1):
        splits.setdefault(f"topic {attack.topic}", set()).add(attack.topic_split)
        splits.setdefault(f"style {attack.style}", set()).add(attack.style_split)
    assert all(len(split) == 1 for split in splits.values())
    for aspect in ("topic", "style"):
        found = set[str]().union(*(split for key, split in splits.items() if key.startswith(aspect)))
        assert found == {"seen", "unseen"}


def test_look_alikes_are_not_the_harmful_requests() -> None:
    harmful = {request.prompt for request in miniworld.instructions(1) if request.harmful}
    assert not harmful & {request.prompt for request in miniworld.look_alikes(1)}
