"""Images with boxes and masks of a command-line text: `coco:DIR` or `voc:DIR`."""

from __future__ import annotations

from pathlib import Path

from luts.format.errors import UsageError
from search.dense.data.coco import open_coco
from search.dense.data.scene import Scenes, Task
from search.dense.data.voc import open_voc


def open_scenes(text: str, task: Task) -> Scenes:
    """The images of a text, for a task.

    Raises:
        UsageError: unknown kind, no such folder, another layout, or a package is missing.
        InvalidArtifactError: annotations are wrong; names the file and the row.
    """
    kind, _, where = text.partition(":")
    if kind not in ("coco", "voc") or not where:
        raise UsageError(f"{text!r} has no boxes and masks; for {task} use coco:DIR or voc:DIR")
    path = Path(where)
    if not path.is_dir():
        raise UsageError(f"{text}: {path} is not a folder; give that of your images")
    return open_coco(text, path) if kind == "coco" else open_voc(text, path, task)
