"""ExecuTorch called natively: executions, and the clock around them, are in C."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from executorch.version import __version__ as executorch_version

from orchestrator.agent.device import built_dir
from orchestrator.agent.runtime import Model, load_error
from orchestrator.wire.messages import TensorSpec

EXECUTORCH = f"ExecuTorch {executorch_version}"

_BUILD = "run `bench doctor native`"

_MODEL = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_MAX_RANK = 16


class ShimError(RuntimeError):
    """A native call failed; `code` is ExecuTorch's (runtime/core/error.h)."""

    def __init__(self, code: int, text: str) -> None:
        """Create the error with ExecuTorch's code."""
        super().__init__(text)
        self.code = code


class ShimMissingError(Exception):
    """There is no usable library; the message says why, with the next step."""


class SpecStruct(ctypes.Structure):
    """The C struct et_tensor_spec."""

    _fields_ = (
        ("dtype", ctypes.c_char_p),
        ("rank", _SIZE),
        ("shape", ctypes.c_int64 * _MAX_RANK),
        ("nbytes", _SIZE),
    )


class DelegateStruct(ctypes.Structure):
    """The C struct et_delegate."""

    _fields_ = (("backend", ctypes.c_char_p), ("count", _SIZE))


_RESULTS = {
    "et_last_error": (ctypes.c_char_p, ()),
    "et_runtime_version": (ctypes.c_char_p, ()),
    "et_shim_version": (ctypes.c_char_p, ()),
    "et_num_backends": (_SIZE, ()),
    "et_backend_name": (ctypes.c_char_p, (_SIZE,)),
    "et_get_threads": (ctypes.c_uint32, ()),
    "et_planned_bytes": (ctypes.c_uint64, (_MODEL,)),
    "et_num_inputs": (_SIZE, (_MODEL,)),
    "et_num_outputs": (_SIZE, (_MODEL,)),
    "et_num_delegates": (_SIZE, (_MODEL,)),
    "et_close": (None, (_MODEL,)),
}
_CALLS = {
    "et_set_threads": (ctypes.c_uint32,),
    "et_open": (ctypes.c_char_p, ctypes.POINTER(_MODEL)),
    "et_load": (_MODEL,),
    "et_input_spec": (_MODEL, _SIZE, ctypes.POINTER(SpecStruct)),
    "et_output_spec": (_MODEL, _SIZE, ctypes.POINTER(SpecStruct)),
    "et_get_delegate": (_MODEL, _SIZE, ctypes.POINTER(DelegateStruct)),
    "et_bind_input": (_MODEL, _SIZE, ctypes.c_void_p, _SIZE),
    "et_set_inputs": (_MODEL,),
    "et_execute": (_MODEL,),
    "et_time_visits": (ctypes.POINTER(_MODEL), _SIZE, ctypes.c_void_p),
    "et_read_output": (_MODEL, _SIZE, ctypes.c_void_p, _SIZE),
}
"""Functions that return an error code."""


class Shim:
    """The native library; its functions are attributes of `c`, and those that can fail raise ShimError."""

    def __init__(self, path: Path) -> None:
        """Load the library; raises OSError, or AttributeError if it is of another version."""
        self.c = ctypes.CDLL(os.fspath(path))
        for name, (result, arguments) in _RESULTS.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        for name, arguments in _CALLS.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes, function.errcheck = ctypes.c_int32, arguments, self._check

    @property
    def version(self) -> str:
        """`native` and the digest of the sources that the library was built from."""
        return f"native {self.c.et_shim_version().decode()}"

    def runtime_version(self) -> str:
        """Return ExecuTorch's version."""
        return str(self.c.et_runtime_version().decode())

    def backends(self) -> list[str]:
        """Return the available backends."""
        return [self.c.et_backend_name(i).decode() for i in range(self.c.et_num_backends())]

    def set_threads(self, threads: int) -> None:
        """Set the number of threads of the process's pool."""
        self.c.et_set_threads(threads)

    def load(self, path: Path, _trace: bool) -> NativeModel:
        """Load a model file; raises AgentError."""
        try:
            return NativeModel(self, path)
        except ShimError as error:
            raise load_error(EXECUTORCH, error, error.code in _MEMORY_ERRORS) from None

    def open(self, path: Path) -> ctypes.c_void_p:
        """Verify a file and return the model, which the caller closes."""
        model = _MODEL()
        self.c.et_open(os.fsencode(path), ctypes.byref(model))
        return model

    def _check(self, code: int, _function: object, _arguments: Sequence[object]) -> int:
        if code:
            raise ShimError(code, self.c.et_last_error().decode(errors="replace"))
        return code


def find_shim() -> Shim:
    """Return the library built for the installed ExecuTorch; raises ShimMissingError."""
    path = built_dir() / "native" / "libetshim.so"
    if not path.is_file():
        raise ShimMissingError(f"native calls are not built ({path} is not there); {_BUILD}")
    try:
        shim = Shim(path)
    except (OSError, AttributeError) as error:
        raise ShimMissingError(
            f"{path} can't be used ({' '.join(str(error).split())[:200]}); {_BUILD}"
        ) from None
    if shim.runtime_version() != executorch_version:
        raise ShimMissingError(
            f"{path} was built for ExecuTorch {shim.runtime_version()}, not {executorch_version}; {_BUILD}"
        )
    return shim


# runtime/core/error.h: MemoryAllocationFailed, OutOfResources, DelegateMemoryAllocationFailed
_MEMORY_ERRORS = (0x21, 0x25, 0x31)


class NativeModel(Model):
    """A loaded method `forward`."""

    def __init__(self, shim: Shim, path: Path) -> None:
        """Load a program; raises ShimError."""
        self._c: Any = shim.c
        self._pointer = shim.open(path)
        try:
            self._c.et_load(self._pointer)
            self.inputs = self._specs("input")
            self.outputs = self._specs("output")
        except Exception:
            self._c.et_close(self._pointer)
            raise
        self.execute = partial(self._c.et_execute, self._pointer)
        self._bound: Sequence[np.ndarray] = ()

    def bind(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets the inputs of the next execution."""
        for index, array in enumerate(arrays):
            self._c.et_bind_input(self._pointer, index, array.ctypes.data, array.nbytes)
        self._bound = arrays
        return partial(self._c.et_set_inputs, self._pointer)

    @staticmethod
    def time_visits(models: Sequence[NativeModel]) -> np.ndarray:
        """Call models in turn and return nanoseconds."""
        latencies_ns = np.zeros(len(models), np.uint64)
        if models:
            pointers = (ctypes.c_void_p * len(models))(*(model._pointer.value for model in models))
            models[0]._c.et_time_visits(pointers, len(models), latencies_ns.ctypes.data)
        return latencies_ns

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the last execution's outputs."""
        outputs = [np.empty(spec.shape, spec.dtype) for spec in self.outputs]
        for index, array in enumerate(outputs):
            self._c.et_read_output(self._pointer, index, array.ctypes.data, array.nbytes)
        return outputs

    def close(self) -> None:
        """Free the model."""
        self._c.et_close(self._pointer)
        del self.execute, self._pointer, self._bound
        super().close()

    def _specs(self, kind: str) -> tuple[TensorSpec, ...]:
        read = getattr(self._c, f"et_{kind}_spec")
        specs = []
        for index in range(getattr(self._c, f"et_num_{kind}s")(self._pointer)):
            spec = SpecStruct()
            read(self._pointer, index, ctypes.byref(spec))
            specs.append(TensorSpec(dtype=spec.dtype.decode(), shape=list(spec.shape[: spec.rank])))
        return tuple(specs)
