"""A taxonomy of hazards, as a guard reads it in its prompt: numbered categories, each with a policy or none.

Llama Guard (Inan et al., arXiv 2312.06674) judges against what stands in its prompt, so a
taxonomy is data: a YAML file that a user may change, cut or replace. Codes are places in the list,
and renumber with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import Field, model_validator

from workbench import recipe
from workbench.errors import RecipeError
from workbench.recipe.safety import Judge
from workbench.recipe.section import Section

BUILT_IN = Path(__file__).parent / "taxonomies"
DEFAULT = "llama-guard-3"


class Category(Section):
    """One hazard: its name, and what is and is not allowed of it."""

    name: str = Field(min_length=1)
    policy: str | None = Field(default=None, description="text below the name in the guard's prompt")


class Taxonomy(Section):
    """Categories in the order of their codes."""

    prefix: str = Field(pattern=r"^[A-Z]$", description="letter before the number of a code, as in S1")
    categories: tuple[Category, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Taxonomy:
        names = [category.name for category in self.categories]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two categories are named {repeated[0]!r}: give each hazard once")
        return self

    @property
    def names(self) -> dict[str, str]:
        """Name of each category by its code."""
        return {f"{self.prefix}{i}": each.name for i, each in enumerate(self.categories, 1)}

    @property
    def text(self) -> str:
        """The categories as lines of a prompt."""
        return "\n".join(
            f"{code}: {each.name}." + (f"\n{each.policy.strip()}" if each.policy else "")
            for code, each in zip(self.names, self.categories, strict=True)
        )

    def only(self, names: Collection[str]) -> Taxonomy:
        """The taxonomy with these categories alone, renumbered.

        Raises:
            ValueError: a name is none of its categories.
        """
        if unknown := sorted(set(names) - set(self.names.values())):
            raise ValueError(
                f"no category is named {unknown[0]!r}; there are {', '.join(self.names.values())}"
            )
        kept = tuple(each for each in self.categories if each.name in names)
        return Taxonomy(prefix=self.prefix, categories=kept)


def load_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy from a YAML file; those of the published guards lie in `BUILT_IN`.

    Raises:
        RecipeError: no such file, or a problem in it, with its line.
    """
    return recipe.read(path, Taxonomy)


def categories(names: Sequence[str], taxonomy: str | None) -> tuple[Category, ...]:
    """Categories of some names: as a built-in taxonomy has them, or the names alone.

    Raises:
        RecipeError: there is no such taxonomy, or it lacks a name.
    """
    if taxonomy is None:
        return tuple(Category(name=name) for name in names)
    return _cut(taxonomy, names).categories


def taxonomy_of(judge: Judge) -> Taxonomy:
    """The categories that a recipe shows its Llama Guard.

    Raises:
        RecipeError: there is no such taxonomy, or it lacks a category.
    """
    name = judge.taxonomy or DEFAULT
    return _cut(name, judge.categories) if judge.categories else load_taxonomy(BUILT_IN / f"{name}.yaml")


def _cut(name: str, names: Sequence[str]) -> Taxonomy:
    whole = load_taxonomy(BUILT_IN / f"{name}.yaml")
    try:
        return whole.only(names)
    except ValueError as error:
        raise RecipeError(f"taxonomy {name}: {error}") from error
