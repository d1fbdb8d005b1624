"""What ExecutorchRuntime needs of a way to call ExecuTorch: natively, or through its Python binding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from orchestrator.agent.runtime.model import Model
from orchestrator.wire.errors import OpError
from orchestrator.wire.fields import OptionValue, TensorSpec
from orchestrator.wire.replies import Delegate
from orchestrator.wire.tensors import spec_of


class LoadError(Exception):
    """The runtime can't load a model, for want of memory or another reason."""

    def __init__(self, reason: str, out_of_memory: bool) -> None:
        super().__init__(reason)
        self.out_of_memory = out_of_memory


@dataclass(frozen=True)
class Loading:
    """What is known of a model before it is loaded, and what to call when it is gone."""

    options: Mapping[str, OptionValue]
    delegates: tuple[Delegate, ...]
    on_close: Callable[[], None]


class Loader(Protocol):
    """Loads models for one pool of threads, that of the process."""

    @property
    def version(self) -> str:
        """The way of calling, and what else decides what it measures beside the agent's own sources."""

    def backends(self) -> list[str]:
        """Those that are registered and available."""

    def set_threads(self, threads: int) -> None:
        """Sets the size of the pool; to be called while no model is loaded."""

    def load(self, path: Path, loading: Loading) -> Model:
        """Loads `forward` of a file that read_pte could read. Raises LoadError."""


def require_inputs(wanted: tuple[TensorSpec, ...], arrays: Sequence[np.ndarray]) -> None:
    """Raises OpError `bad_input` where the arrays are not what a model takes."""
    got = tuple(spec_of(array) for array in arrays)
    if got != wanted:
        raise OpError("bad_input", f"the model takes {_show(wanted)}, got {_show(got)}")


def _show(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.dtype}{spec.shape}" for spec in specs) or "no inputs"
