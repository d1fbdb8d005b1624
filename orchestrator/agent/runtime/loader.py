"""What ExecutorchRuntime needs of a way to call ExecuTorch, and what it shares with the other runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from orchestrator.agent.device.cores import threads_by_default, usable_cores
from orchestrator.agent.device.state import free_memory_bytes
from orchestrator.agent.runtime.model import Model
from orchestrator.wire.errors import OpError
from orchestrator.wire.fields import OptionValue, TensorSpec
from orchestrator.wire.replies import Delegate, OptionInfo
from orchestrator.wire.tensors import spec_of

_SPARE_MEMORY_BYTES = 256 << 20
"""Left to the rest of the system, so that a load never drives the machine into swapping."""


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


def require_memory(needed_bytes: int) -> None:
    """Raises OpError `out_of_memory` where a load is expected to take more than is free."""
    free_bytes = free_memory_bytes()
    if free_bytes is not None and needed_bytes + _SPARE_MEMORY_BYTES > free_bytes:
        raise OpError(
            "out_of_memory",
            f"the model needs about {needed_bytes >> 20} MiB and {free_bytes >> 20} MiB are free "
            f"({_SPARE_MEMORY_BYTES >> 20} MiB are kept spare); unload models or take a smaller one",
        )


def threads_option() -> OptionInfo:
    """The option `threads` of a runtime on this machine."""
    return OptionInfo(type="int", default=threads_by_default(), min=1, max=usable_cores())


def checked_threads(
    runtime: str, options: Mapping[str, OptionValue], threads: OptionInfo
) -> dict[str, OptionValue]:
    """All options in effect of a runtime that has `threads` alone. Raises OpError `bad_option`."""
    unknown = sorted(set(options) - {"threads"})
    if unknown:
        raise OpError("bad_option", f"{runtime} has no option {unknown[0]!r}; it has: threads")
    chosen = options.get("threads", threads.default)
    if type(chosen) is not int or not 1 <= chosen <= int(threads.max or 1):
        raise OpError("bad_option", f"threads must be 1 to {threads.max} here, got {chosen!r}")
    return {"threads": chosen}


def _show(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.dtype}{spec.shape}" for spec in specs) or "no inputs"
