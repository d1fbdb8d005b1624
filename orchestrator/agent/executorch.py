"""ExecuTorch behind the agent's Runtime interface.

Calls: native if libetshim.so is built, else through the Python binding; the agent's version says which.
Models to be traced are always loaded through the binding; both ways share one runtime and one pool of
threads.

Threads: XNNPACK binds a model to the process-wide thread pool when the model is loaded. Resetting the pool
frees the old one, but an earlier model keeps its address: in trials with 1.5.1 a model loaded with one thread
stayed at one, and a model loaded with two fell to one when the pool did. Neither is safe nor what was
requested. So the pool is only reset while no model is loaded, and all loaded models share one thread count
and the cores that threads are pinned to.

Inputs: activations are planned into one arena, inputs included, so an execution overwrites its inputs. They
are set again before every execution (outside the timed call); else the next one computes on leftovers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from executorch.version import __version__ as executorch_version

from orchestrator.agent.device import allowed_cores, core_list, parse_cores, pin_threads, usable_cores
from orchestrator.agent.native import ShimMissingError, find_shim
from orchestrator.agent.runtime import Model, checked_options, read_pte, require_memory, threads_option
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import OptionInfo, OptionValue, RuntimeInfo

_COPIES_OF_WEIGHTS = 2
"""The file is mapped and XNNPACK packs the weights into memory of its own, so they may be resident twice."""


class Loader(Protocol):
    """Loads models for the process's pool of threads."""

    @property
    def version(self) -> str:
        """How it calls the runtime, and what else (besides the agent's own sources) decides what it measures."""

    def backends(self) -> list[str]:
        """Return the available backends."""

    def set_threads(self, threads: int) -> None:
        """Set the size of the pool; only while no model is loaded."""

    def load(self, path: Path, traced: bool, /) -> Model:
        """Load `forward` of a file that read_pte accepts; raises AgentError."""


def find_loader() -> Loader:
    """Return native calls if they are built, else the binding's."""
    try:
        return find_shim()
    except ShimMissingError:
        return _binding()


class ExecutorchRuntime:
    """Loads .pte files; implements the agent's Runtime."""

    def __init__(self, loader: Loader, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        """Load models with `loader`; `clock` counts nanoseconds."""
        self._loader, self._clock = loader, clock
        self._loaded = 0
        self._usable, self._most = allowed_cores(), usable_cores()
        self._options = {"threads": threads_option()}
        if self._usable:
            self._options["cores"] = OptionInfo(type="str", default="")
        self._options["trace"] = OptionInfo(type="bool", default=False)
        self._in_use: dict[str, OptionValue] = {}
        self._pinned = ""

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""
        return RuntimeInfo(
            version=executorch_version, backends=sorted(self._loader.backends()), options=self._options
        )

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Load a model file; raises AgentError."""
        checked = self._checked(options)
        try:
            summary = read_pte(path)
        except ValueError as error:
            raise AgentError(
                "bad_model", f"the model is damaged or no .pte: {error}; export it again"
            ) from None
        require_memory(_COPIES_OF_WEIGHTS * path.stat().st_size + summary.planned_bytes)
        if self._loaded == 0:
            self._prepare_threads(checked)
        loader = _binding() if checked["trace"] else self._loader
        start_ns = self._clock()
        model = loader.load(path, bool(checked["trace"]))
        model.load_ns = self._clock() - start_ns
        model.options, model.delegates, model.on_close = checked, summary.delegates, self._release
        self._loaded += 1
        return model

    def _release(self) -> None:
        self._loaded -= 1

    def _checked(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Return all options in effect; raises AgentError."""
        most = len(self._checked_cores(options.get("cores", ""))) or self._most
        threads = self._options["threads"]
        limits = {"max": most, "default": min(most, int(threads.default))}
        known = self._options | {"threads": threads.model_copy(update=limits)}
        checked = checked_options("executorch", options, known)
        for name in {"threads", "cores"} & set(checked) if self._loaded else ():
            if checked[name] != self._in_use[name]:
                raise AgentError(
                    "options_conflict",
                    f"{name}={checked[name]} requested, but {self._loaded} models are loaded with "
                    f"{name}={self._in_use[name]}; unload them first",
                )
        return checked

    def _checked_cores(self, cores: OptionValue) -> tuple[int, ...]:
        """Return the cores to pin threads to; empty to leave them to the system."""
        if not self._usable or cores == "" or type(cores) is not str:
            return ()
        try:
            wanted = parse_cores(cores)
        except ValueError as error:
            raise AgentError("bad_option", f"cores: {error}") from None
        if not set(wanted) <= set(self._usable):
            raise AgentError("bad_option", f"cores must be of {core_list(self._usable)} here, got {cores!r}")
        return wanted

    def _prepare_threads(self, options: Mapping[str, OptionValue]) -> None:
        """Pin first, then resize: a new pool's threads inherit the cores of the thread that starts them."""
        cores = str(options.get("cores", ""))
        if cores != self._pinned:
            try:
                pin_threads(parse_cores(cores) if cores else self._usable)
            except OSError as error:
                raise AgentError(
                    "bad_option", f"cores={cores}: {error.strerror or error}; choose others"
                ) from None
            self._pinned = cores
        self._loader.set_threads(int(options["threads"]))
        self._in_use = dict(options)


def _binding() -> Loader:
    # It imports torch, which takes seconds and is not needed for native calls.
    from orchestrator.agent.binding import BindingLoader

    return BindingLoader()
