"""ExecuTorch called through its Python binding: without native calls, and to trace operations.

The interpreter's and the binding's own work, including a redirection of stdout and stderr in every call, is
between the two readings of the clock: microseconds, which matter for networks of a fraction of a millisecond.

The compiled bindings are imported directly, after torch, whose libraries they need. `portable_lib` would
import the exporter as well, for a warning's class: 4 of the 6 s that an agent took to start.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.agent.native import EXECUTORCH
from orchestrator.agent.runtime import Model, load_error
from orchestrator.wire.messages import TensorSpec, TracedOperation

bindings: Any = importlib.import_module("executorch.extension.pybindings._C")
"""ExecuTorch's compiled bindings."""

_EXECUTE, _DELEGATE, _NATIVE = "Method::execute", "DELEGATE_CALL", "native_call_"


def _events(events: Iterable[Any]) -> Iterable[tuple[str, int | None, int]]:
    """Name, delegate call and ns of each operation; the whole execution last, with no name."""
    call = 0
    for event in (event.profile_event for event in events if event.profile_event):
        ns = event.end_time - event.start_time
        if event.delegate_debug_id_str:
            yield event.delegate_debug_id_str, call, ns
        elif event.name == _DELEGATE:
            call += 1
        elif event.name == _EXECUTE:
            yield "", None, ns
        elif event.name.startswith(_NATIVE):
            yield event.name, None, ns


def _faster_half(runs: Sequence[Sequence[tuple[str, int | None, int]]]) -> list[TracedOperation]:
    fastest = sorted(runs, key=lambda run: run[-1][2])[: (len(runs) + 1) // 2]
    if not fastest:
        return []
    return [
        TracedOperation(
            name=same[0][0][:256], call=same[0][1], ns=sum(ns for _, _, ns in same) / len(fastest)
        )
        for same in zip(*fastest, strict=True)
        if same[0][0]
    ]


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


class BindingModel(Model):
    """A loaded method `forward`."""

    def __init__(self, path: Path, traced: bool) -> None:
        """Load a program; raises RuntimeError."""
        self._traced = traced
        self._program = bindings._load_program(
            os.fspath(path),
            enable_etdump=traced,
            program_verification=bindings.Verification.InternalConsistency,
        )
        self._method = self._program.load_method("forward")
        meta = self._method.method_meta()
        self.inputs = tuple(_spec(meta.input_tensor_meta(i)) for i in range(meta.num_inputs()))
        self.outputs = tuple(_spec(meta.output_tensor_meta(i)) for i in range(meta.num_outputs()))
        self.execute = self._method.execute

    def bind(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets the inputs of the next execution."""
        return partial(self._method.set_inputs, [torch.from_numpy(array) for array in arrays])

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the last execution's outputs."""
        return [tensor.numpy() for tensor in self._method.get_outputs(clone_outputs=True)]

    def take_operations(self, skip: int) -> list[TracedOperation]:
        """Return the mean over the faster half of the executions, which nothing disturbed.

        A mean, because times are truncated: an operation of 0.6 us shows 0 in most executions and 1 in some.
        """
        if not self._traced:
            return []
        from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "operations.etdp"
            self._program.write_etdump_result_to_file(str(path))
            dump = deserialize_from_etdump_flatcc(path.read_bytes())
        runs = [list(_events(run.events or ())) for run in dump.run_data if run.name == "Execute"]
        return _faster_half([run for run in runs if run][skip:])

    def close(self) -> None:
        """Free the model."""
        del self.execute, self._method, self._program
        super().close()


class BindingLoader:
    """Loader of `executorch.extension.pybindings`."""

    version = "binding"

    def __init__(self) -> None:
        """Keep torch on one thread: it runs nothing here, but would start a pool of its own if anything used it."""
        torch.set_num_threads(1)

    def backends(self) -> list[str]:
        """Return the available backends."""
        names = bindings._get_registered_backend_names()
        return [name for name in names if bindings._is_available(name)]

    def set_threads(self, threads: int) -> None:
        """Set the number of threads of the process's pool."""
        if bindings._threadpool_get_thread_count() != threads:
            bindings._unsafe_reset_threadpool(threads)

    def load(self, path: Path, traced: bool) -> BindingModel:
        """Load a model file; raises AgentError."""
        try:
            return BindingModel(path, traced)
        except (RuntimeError, IndexError, KeyError, ValueError) as error:
            raise load_error(EXECUTORCH, error, str(error).endswith(_MEMORY_ERRORS)) from None


def _spec(info: Any) -> TensorSpec:
    return TensorSpec.model_validate({"dtype": _DTYPES[info.dtype()], "shape": list(info.sizes())})
