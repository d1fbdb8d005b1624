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

from collections.abc import Mapping
from pathlib import Path

from executorch.version import __version__ as executorch_version

from orchestrator.agent.device import allowed_cores, pin_threads, usable_cores
from orchestrator.agent.native import NativeLoader, ShimMissingError, find_shim
from orchestrator.agent.runtime import (
    Loader,
    LoadError,
    Loading,
    Model,
    PteSummary,
    read_pte,
    require_memory,
    threads_option,
)
from orchestrator.wire.errors import OpError
from orchestrator.wire.messages import OptionInfo, OptionValue, RuntimeInfo, core_list, parse_cores

_COPIES_OF_WEIGHTS = 2
"""The file is mapped and XNNPACK packs the weights into memory of its own, so they may be resident twice."""


def find_loader() -> Loader:
    """Return native calls if they are built, else the binding's."""
    try:
        return NativeLoader(find_shim())
    except ShimMissingError:
        return _binding()


class ExecutorchRuntime:
    """Loads .pte files; implements the agent's Runtime."""

    def __init__(self, loader: Loader) -> None:
        """Load models with `loader`."""
        self._loader = loader
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
        """Load a model file; raises OpError."""
        checked = self._checked(options)
        summary = _summary(path)
        require_memory(_COPIES_OF_WEIGHTS * path.stat().st_size + summary.planned_bytes)
        if self._loaded == 0:
            self._prepare_threads(checked)
        loader = _binding() if checked["trace"] else self._loader
        loading = Loading(checked, summary.delegates, self._release)
        try:
            model = loader.load(path, loading)
        except LoadError as error:
            code = "out_of_memory" if error.out_of_memory else "bad_model"
            reason = " ".join(str(error).split())[:200]
            raise OpError(
                code, f"ExecuTorch {executorch_version} can't load the model ({reason}); export it again"
            ) from None
        self._loaded += 1
        return model

    def _release(self) -> None:
        self._loaded -= 1

    def _checked(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Return all options in effect; raises OpError."""
        unknown = sorted(set(options) - set(self._options))
        if unknown:
            known = ", ".join(self._options)
            raise OpError("bad_option", f"executorch has no option {unknown[0]!r}; it has: {known}")
        most = len(self._checked_cores(options.get("cores", ""))) or self._most
        checked = {name: info.default for name, info in self._options.items()}
        checked |= {"threads": min(most, int(checked["threads"]))} | dict(options)
        threads = checked["threads"]
        if type(threads) is not int or not 1 <= threads <= most:
            raise OpError("bad_option", f"threads must be 1 to {most} here, got {threads!r}")
        if type(checked["trace"]) is not bool:
            raise OpError("bad_option", f"trace must be true or false, got {checked['trace']!r}")
        for name in {"threads", "cores"} & set(checked) if self._loaded else ():
            if checked[name] != self._in_use[name]:
                raise OpError(
                    "options_conflict",
                    f"{name}={checked[name]} requested, but {self._loaded} models are loaded with "
                    f"{name}={self._in_use[name]}; unload them first",
                )
        return checked

    def _checked_cores(self, cores: OptionValue) -> tuple[int, ...]:
        """Return the cores to pin threads to; empty to leave them to the system."""
        if cores == "":
            return ()
        if type(cores) is not str:
            raise OpError("bad_option", f"cores must be a list such as 4-8, got {cores!r}")
        try:
            wanted = parse_cores(cores)
        except ValueError as error:
            raise OpError("bad_option", f"cores: {error}") from None
        if not set(wanted) <= set(self._usable):
            raise OpError("bad_option", f"cores must be of {core_list(self._usable)} here, got {cores!r}")
        return wanted

    def _prepare_threads(self, options: Mapping[str, OptionValue]) -> None:
        """Pin first, then resize: a new pool's threads inherit the cores of the thread that starts them."""
        cores = str(options.get("cores", ""))
        if cores != self._pinned:
            try:
                pin_threads(parse_cores(cores) if cores else self._usable)
            except OSError as error:
                raise OpError(
                    "bad_option", f"cores={cores}: {error.strerror or error}; choose others"
                ) from None
            self._pinned = cores
        self._loader.set_threads(int(options["threads"]))
        self._in_use = dict(options)


def _binding() -> Loader:
    # It imports torch, which takes seconds and is not needed for native calls.
    from orchestrator.agent.binding import BindingLoader

    return BindingLoader()


def _summary(path: Path) -> PteSummary:
    try:
        return read_pte(path)
    except ValueError as error:
        raise OpError("bad_model", f"the model is damaged or no .pte: {error}; export it again") from None
