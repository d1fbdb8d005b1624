"""ExecuTorch behind the agent's Runtime interface.

Threads: XNNPACK binds a model to the process-wide thread pool when the model is loaded. Resetting the pool
frees the old one, and a model loaded before keeps its address: in trials with 1.5.1 a model loaded with one
thread stayed at one, and a model loaded with two fell to one when the pool did. Neither is safe nor what was
asked for. So the pool is only reset while no model is loaded, and all loaded models share one thread count.

Inputs: activations are planned into one arena, inputs included, so an execution overwrites its inputs. They
are set again before every execution (outside the timed call); else the next one computes on leftovers.

Start: the compiled bindings are imported by themselves, after torch, whose libraries they need. `portable_lib`
would import the exporter with them, for a warning's class: 4 of the 6 s that an agent took to start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings import _C as bindings
from executorch.version import __version__ as executorch_version

from orchestrator.agent.errors import OpError
from orchestrator.agent.pte import PteSummary, read_pte
from orchestrator.agent.state import free_memory_bytes
from orchestrator.agent.tracing import take_operations
from orchestrator.cores import usable_cores
from orchestrator.wire.messages import OptionInfo, OptionValue, RuntimeInfo, TensorSpec, TracedOperation
from orchestrator.wire.tensors import spec_of

# executorch/schema/scalar_type.fbs
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}

# runtime/core/error.h: MemoryAllocationFailed, OutOfResources, DelegateMemoryAllocationFailed
_MEMORY_ERRORS = ("0x:21", "0x:25", "0x:31")

# The file is mapped and XNNPACK packs the weights into memory of its own, so they may be resident twice.
_COPIES_OF_WEIGHTS = 2

# Left to the rest of the system, so that a load never drives the machine into swapping.
_SPARE_MEMORY_BYTES = 256 << 20


class ExecutorchModel:
    """A loaded method `forward`; implements the agent's Model."""

    placement = None

    def __init__(
        self,
        program: Any,
        method: Any,
        summary: PteSummary,
        options: Mapping[str, OptionValue],
        on_close: Callable[[], None],
    ) -> None:
        self._traced = bool(options["trace"])
        meta = method.method_meta()
        self.inputs = tuple(_spec(meta.input_tensor_meta(i)) for i in range(meta.num_inputs()))
        self.outputs = tuple(_spec(meta.output_tensor_meta(i)) for i in range(meta.num_outputs()))
        self.options = options
        self.delegates = summary.delegates
        self.execute: Callable[[], object] = method.execute
        self._program = program
        self._method = method
        self._on_close = on_close

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        specs = tuple(spec_of(array) for array in arrays)
        if specs != self.inputs:
            raise OpError("bad_input", f"the model takes {_show(self.inputs)}, got {_show(specs)}")
        return partial(self._method.set_inputs, [torch.from_numpy(array.copy()) for array in arrays])

    def get_outputs(self) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in self._method.get_outputs(clone_outputs=True)]

    def take_operations(self, skip: int) -> list[TracedOperation]:
        return take_operations(self._program, skip) if self._traced else []

    def close(self) -> None:
        del self.execute, self._method, self._program
        self._on_close()


class ExecutorchRuntime:
    """Loads .pte files; implements the agent's Runtime."""

    def __init__(self) -> None:
        self._loaded = 0
        self._threads = usable_cores()
        # Torch runs nothing here but would start a pool of its own if anything woke it.
        torch.set_num_threads(1)

    def describe(self) -> RuntimeInfo:
        names = bindings._get_registered_backend_names()
        threads = OptionInfo(type="int", default=usable_cores(), min=1, max=usable_cores())
        return RuntimeInfo(
            version=executorch_version,
            backends=sorted(name for name in names if bindings._is_available(name)),
            options={"threads": threads, "trace": OptionInfo(type="bool", default=False)},
        )

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> ExecutorchModel:
        threads, trace = self._checked_threads(options), _checked_trace(options)
        summary = _summary(path)
        _require_memory(path.stat().st_size, summary.planned_bytes)
        if self._loaded == 0 and bindings._threadpool_get_thread_count() != threads:
            bindings._unsafe_reset_threadpool(threads)
        self._threads = threads
        try:
            program = bindings._load_program(
                os.fspath(path),
                enable_etdump=trace,
                program_verification=bindings.Verification.InternalConsistency,
            )
            method = program.load_method("forward")
            in_effect = {"threads": threads, "trace": trace}
            model = ExecutorchModel(program, method, summary, in_effect, self._release)
        except (RuntimeError, IndexError, KeyError, ValueError) as error:
            code = "out_of_memory" if str(error).endswith(_MEMORY_ERRORS) else "bad_model"
            reason = " ".join(str(error).split())[:200]
            raise OpError(
                code, f"ExecuTorch {executorch_version} can't load the model ({reason}); export it again"
            ) from None
        self._loaded += 1
        return model

    def _release(self) -> None:
        self._loaded -= 1

    def _checked_threads(self, options: Mapping[str, OptionValue]) -> int:
        unknown = sorted(set(options) - {"threads", "trace"})
        if unknown:
            raise OpError("bad_option", f"executorch has no option {unknown[0]!r}; it has: threads, trace")
        threads = options.get("threads", usable_cores())
        if type(threads) is not int or not 1 <= threads <= usable_cores():
            raise OpError("bad_option", f"threads must be 1 to {usable_cores()} here, got {threads!r}")
        if self._loaded and threads != self._threads:
            raise OpError(
                "options_conflict",
                f"threads={threads} asked, but {self._loaded} models are loaded with "
                f"threads={self._threads}; unload them first",
            )
        return threads


def _checked_trace(options: Mapping[str, OptionValue]) -> bool:
    trace = options.get("trace", False)
    if type(trace) is not bool:
        raise OpError("bad_option", f"trace must be true or false, got {trace!r}")
    return trace


def _summary(path: Path) -> PteSummary:
    try:
        return read_pte(path)
    except ValueError as error:
        raise OpError("bad_model", f"the model is damaged or no .pte: {error}; export it again") from None


def _require_memory(file_bytes: int, planned_bytes: int) -> None:
    needed_bytes = _COPIES_OF_WEIGHTS * file_bytes + planned_bytes
    free_bytes = free_memory_bytes()
    if free_bytes is not None and needed_bytes + _SPARE_MEMORY_BYTES > free_bytes:
        raise OpError(
            "out_of_memory",
            f"the model needs about {needed_bytes >> 20} MiB and {free_bytes >> 20} MiB are free "
            f"({_SPARE_MEMORY_BYTES >> 20} MiB are kept spare); unload models or take a smaller one",
        )


def _spec(info: Any) -> TensorSpec:
    return TensorSpec.model_validate({"dtype": _DTYPES[info.dtype()], "shape": list(info.sizes())})


def _show(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.dtype}{spec.shape}" for spec in specs) or "no inputs"
