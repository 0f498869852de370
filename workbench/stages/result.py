"""What a finished stage says about itself, beside its model: one shape for every kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workbench import storage


@dataclass(frozen=True)
class StageResult:
    """Cost of a stage in seconds and bytes, bits per quantized weight, and what a reader must know."""

    seconds: float
    peak_memory_bytes: int
    nominal_bits: float | None = None
    real_bits: float | None = None
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `result.json`."""
        storage.write_json(folder / "result.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> StageResult:
        """Read `result.json` of a finished stage."""
        return cls(**storage.read_json(folder / "result.json"))
