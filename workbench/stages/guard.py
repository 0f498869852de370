"""Guard: a row with the weights of its parent, whose answers a guard filters when it is measured."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from workbench.recipe.safety import Guarded
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult

# Another file system, one without hard links, a file that is not the user's own, or one linked too often.
_UNLINKED = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK}


def build(job: Job, out: Path) -> None:
    """Share the parent's model folder as `out/model`."""
    stage, parent = job.variant.stage, job.parent
    assert isinstance(stage, Guarded) and parent
    with measured() as cost:
        share(parent.model_folder, out / "model")
    details = {"guard": stage.guard.kind, "place": stage.place, "guarded": parent.variant.name}
    StageResult(cost.seconds, cost.peak_memory_bytes, details=details).write(out)


def share(source: Path, target: Path) -> None:
    """Give a folder a second name, file by file, so that the first one may go; copy what cannot be linked.

    A model that was only brought in is a link to where it lies, and stays one.
    """
    if source.is_symlink():
        target.symlink_to(source.resolve(), target_is_directory=True)
        return
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        twin = target / file.relative_to(source)
        twin.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), twin)
        except OSError as error:
            if error.errno not in _UNLINKED:
                raise
            shutil.copy2(file, twin)
