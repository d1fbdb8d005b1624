"""Everything that an exporting worker process needs; imported once, before workers fork."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from orchestrator.export.lower import quiet
from search.spaces.plugins import load_plugins

with quiet():
    import executorch.exir
    import executorch.extension.pybindings.portable_lib  # noqa: F401

    import orchestrator.export.reuse.lowering  # noqa: F401
    from orchestrator.export.artifacts.artifact import Artifact, ArtifactCache
    from orchestrator.export.artifacts.spec import ExportSpec
    from orchestrator.export.build import export_spec


def start(root: Path, tolerance: float, plugins: tuple[str, ...]) -> Callable[[ExportSpec], Artifact]:
    """Set up this process for exports on one thread and return the function that exports a model."""
    # The runtime's native code reports on the processor's files on stderr, line by line.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    # Objects of the imported libraries never die; collecting over them takes a fifth of an export's time.
    gc.freeze()
    load_plugins(plugins)
    return partial(export_spec, cache=ArtifactCache(root), tolerance=tolerance)
