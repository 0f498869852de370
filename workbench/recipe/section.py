"""What every section of a recipe is made of: strict classes, and numbers as people write them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Share = Annotated[float, Field(ge=0, le=1)]


def _whole(value: Any) -> Any:
    """Let `tokens: 1e9` be the whole number that it says."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _sums_to_one(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if any(weight < 0 for weight in weights.values()) or abs(total - 1) > 1e-6:
        raise ValueError(f"weights must be at least 0 and sum to 1; they sum to {total:g}")
    return weights


# The bounds stand before the validator, so that they reach the JSON schema.
Count = Annotated[int, Field(gt=0), BeforeValidator(_whole)]
Index = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Bits = Annotated[int, Field(ge=1, le=8), BeforeValidator(_whole)]
Width = Annotated[float, Field(ge=1, le=8), AfterValidator(_whole)]
Seed = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole)]
Mixture = Annotated[dict[str, float], Field(min_length=1), AfterValidator(_sums_to_one)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
