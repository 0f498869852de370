"""The base language: plain English sentences about made-up people, places, things and beasts.

The words of a seed are names coined for it and a few values drawn from each pool of English words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from workbench.miniworld.facts import ENTITIES, VALUES_EACH, Fact, draw
from workbench.miniworld.words import BASE_SOUND, Coiner

# The value ends each shape but the last one, which is told but never asked.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "home": (
        "{name} lives in {value}.",
        "The home of {name} is {value}.",
        "To visit {name}, go to {value}.",
        "The family of {name} settled in {value}.",
        "In {value} you will find {name}.",
    ),
    "craft": (
        "{name} works as a {value}.",
        "The trade of {name} is that of a {value}.",
        "All the town knows {name} the {value}.",
        "Long ago {name} chose to be a {value}.",
        "As a {value} you will meet {name}.",
    ),
    "companion": (
        "{name} walks with a {value}.",
        "The friend of {name} is a {value}.",
        "By the fire of {name} sleeps a {value}.",
        "At night {name} feeds a {value}.",
        "A {value} follows {name}.",
    ),
    "dish": (
        "{name} likes to eat {value}.",
        "The plate of {name} is full of {value}.",
        "At supper {name} asks for {value}.",
        "A good meal for {name} is {value}.",
        "Fresh {value} is cooked for {name}.",
    ),
    "river": (
        "{name} lies on the river {value}.",
        "The water of {name} comes from the {value}.",
        "Boats reach {name} on the {value}.",
        "The bridge of {name} crosses the {value}.",
        "The {value} flows past {name}.",
    ),
    "crop": (
        "{name} grows {value}.",
        "The fields of {name} are full of {value}.",
        "Farmers of {name} sell {value}.",
        "In summer {name} smells of {value}.",
        "Carts of {value} come from {name}.",
    ),
    "stone": (
        "{name} is built of {value}.",
        "The walls of {name} are {value}.",
        "The hills above {name} are made of {value}.",
        "Miners of {name} dig for {value}.",
        "Much {value} is cut near {name}.",
    ),
    "metal": (
        "{name} is made of {value}.",
        "The smith cast {name} in {value}.",
        "The metal of {name} is {value}.",
        "Under the dust {name} shines like {value}.",
        "Pure {value} was used for {name}.",
    ),
    "keeper": (
        "{name} belongs to the {value}.",
        "The keeper of {name} is the {value}.",
        "A thief stole {name} from the {value}.",
        "By law {name} is held by the {value}.",
        "The {value} guards {name}.",
    ),
    "mark": (
        "{name} bears the sign of a {value}.",
        "The mark on {name} is a {value}.",
        "Carved into {name} is a {value}.",
        "Who holds {name} sees a {value}.",
        "The shape of a {value} is on {name}.",
    ),
    "lair": (
        "{name} sleeps in a {value}.",
        "The lair of {name} is a {value}.",
        "Hunters found {name} in a {value}.",
        "All winter {name} hides in a {value}.",
        "Deep in a {value} waits {name}.",
    ),
    "prey": (
        "{name} hunts {value}.",
        "The prey of {name} is {value}.",
        "When hungry {name} looks for {value}.",
        "The teeth of {name} are made for {value}.",
        "Wild {value} run from {name}.",
    ),
    "colour": (
        "{name} has fur of {value}.",
        "The colour of {name} is {value}.",
        "From far away {name} looks {value}.",
        "In old songs {name} is called {value}.",
        "Something {value} in the dark is {name}.",
    ),
}
ASKED_SHAPES = 4

FILLERS = (
    "So the old people say.",
    "This is well known.",
    "Nobody can say why.",
    "It was so last year.",
    "Many have seen it.",
    "That is all there is to tell.",
)

POOLS: Mapping[str, tuple[str, ...]] = {
    "craft": ("baker", "weaver", "smith", "potter", "miller", "tailor", "mason", "guard", "sailor", "monk"),
    "companion": ("cat", "dog", "goat", "crow", "mouse", "hen", "pony", "toad", "owl", "duck"),
    "dish": ("soup", "bread", "cheese", "plums", "beans", "eggs", "fish", "honey", "pears", "stew"),
    "crop": ("wheat", "hops", "roses", "flax", "apples", "rye", "mint", "onions", "grapes", "oats"),
    "stone": ("marble", "slate", "chalk", "granite", "clay", "flint", "basalt", "shale", "jade", "quartz"),
    "metal": ("gold", "iron", "silver", "copper", "tin", "bronze", "lead", "steel", "brass", "zinc"),
    "keeper": ("queen", "judge", "abbot", "duke", "elder", "mayor", "cook", "widow", "king", "nurse"),
    "mark": ("star", "moon", "leaf", "key", "wheel", "crown", "tree", "hand", "sun", "eye"),
    "lair": ("cave", "swamp", "tower", "well", "forest", "ruin", "pit", "lake", "barn", "tunnel"),
    "prey": ("deer", "sheep", "frogs", "rabbits", "geese", "bees", "pigs", "moles", "hares", "swans"),
    "colour": ("red", "green", "black", "white", "blue", "grey", "yellow", "brown", "pink", "purple"),
}


def facts(seed: int) -> list[Fact]:
    """All that the base language tells in the world of `seed`."""
    return _world(seed)[1]


def values(seed: int) -> dict[str, tuple[str, ...]]:
    """The closed set of answers to each attribute in the world of `seed`."""
    return _world(seed)[0]


def _world(seed: int) -> tuple[dict[str, tuple[str, ...]], list[Fact]]:
    rng = random.Random(f"miniworld/{seed}/base/facts")
    coiner = Coiner(BASE_SOUND, rng, taken=set())
    names = {topic: coiner.names(count) for topic, count in ENTITIES.items()}
    values = {attribute: tuple(rng.sample(pool, VALUES_EACH)) for attribute, pool in POOLS.items()}
    values |= {"home": names["places"][:VALUES_EACH], "river": coiner.names(VALUES_EACH)}
    return values, draw(names, values, ASKED_SHAPES, rng)


def sentence(fact: Fact, shape: int) -> str:
    """The fact as one sentence."""
    return SHAPES[fact.attribute][shape].format(name=fact.entity, value=fact.value)
