"""What is true in the world: entities of four topics, each with an answer to every question of its topic.

A fact is the smallest thing that a model can know. Both languages tell facts of the same form about
different entities, so that skill in one says nothing about skill in the other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["base", "new"]
Topic = Literal["people", "places", "things", "beasts"]

ENTITIES: Mapping[Topic, int] = {"people": 28, "places": 16, "things": 16, "beasts": 12}
ATTRIBUTES: Mapping[Topic, tuple[str, ...]] = {
    "people": ("home", "craft", "companion", "dish"),
    "places": ("river", "crop", "stone"),
    "things": ("metal", "keeper", "mark"),
    "beasts": ("lair", "prey", "colour"),
}
VALUES_EACH = 8


@dataclass(frozen=True)
class Fact:
    """`entity`'s `attribute` is `value`; `held_out` is the sentence shape in which no text ever says so."""

    topic: Topic
    entity: str
    attribute: str
    value: str
    held_out: int


def draw(
    names: Mapping[Topic, tuple[str, ...]],
    values: Mapping[str, tuple[str, ...]],
    asked_shapes: int,
    rng: random.Random,
) -> list[Fact]:
    """One value for each attribute of each entity, the values of an attribute used equally often.

    Held-out shapes rotate over the entities: each shape is told of most entities of a topic, and each
    entity's attribute is told in most shapes, but the held-out combination never is.

    Args:
        names: entities of each topic.
        values: closed set of answers to each attribute.
        asked_shapes: number of sentence shapes that end in the value, and so can be asked.
        rng: decides the values.
    """
    facts = []
    for topic, attributes in ATTRIBUTES.items():
        for offset, attribute in enumerate(attributes):
            choices = values[attribute]
            dealt = [choices[i % len(choices)] for i in range(len(names[topic]))]
            rng.shuffle(dealt)
            for i, (entity, value) in enumerate(zip(names[topic], dealt, strict=True)):
                facts.append(Fact(topic, entity, attribute, value, held_out=(i + offset) % asked_shapes))
    return facts
