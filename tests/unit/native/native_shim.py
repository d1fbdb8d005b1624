"""libetshim.so through ctypes, as far as tests need it. Imports no runtime: a child process starts quickly."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INVALID_STATE = 0x02
NOT_SUPPORTED = 0x10
INVALID_ARGUMENT = 0x12


class ShimError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Spec(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_size_t),
        ("shape", ctypes.c_int64 * 16),
        ("nbytes", ctypes.c_size_t),
    )


class _Delegate(ctypes.Structure):
    _fields_ = (("backend", ctypes.c_char_p), ("count", ctypes.c_size_t))


@dataclass(frozen=True)
class Spec:
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Shim:
    """The library of the folder that tools/build_native.sh fills."""

    def __init__(self, folder: Path) -> None:
        self.c = ctypes.CDLL(str(folder / "libetshim.so"))
        for name in ("et_last_error", "et_runtime_version", "et_backend_name"):
            getattr(self.c, name).restype = ctypes.c_char_p
        for name in ("et_num_backends", "et_num_inputs", "et_num_outputs", "et_num_delegates"):
            getattr(self.c, name).restype = ctypes.c_size_t
        self.c.et_planned_bytes.restype = ctypes.c_uint64
        self.c.et_get_threads.restype = ctypes.c_uint32
        self.c.et_close.restype = None

    def check(self, code: int) -> None:
        if code:
            raise ShimError(code, self.c.et_last_error().decode())

    def backends(self) -> list[str]:
        return [self.c.et_backend_name(ctypes.c_size_t(i)).decode() for i in range(self.c.et_num_backends())]

    def set_threads(self, threads: int) -> None:
        self.check(self.c.et_set_threads(ctypes.c_uint32(threads)))

    def open(self, path: Path) -> Model:
        model = ctypes.c_void_p()
        self.check(self.c.et_open(str(path).encode(), ctypes.byref(model)))
        return Model(self, model)


class Model:
    def __init__(self, shim: Shim, pointer: ctypes.c_void_p) -> None:
        self._shim = shim
        self._pointer = pointer
        self._bound: list[np.ndarray] = []

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self._shim.c.et_close(self._pointer)

    @property
    def inputs(self) -> list[Spec]:
        return self._specs("input")

    @property
    def outputs(self) -> list[Spec]:
        return self._specs("output")

    @property
    def planned_bytes(self) -> int:
        return int(self._shim.c.et_planned_bytes(self._pointer))

    @property
    def delegates(self) -> dict[str, int]:
        found = {}
        for i in range(self._shim.c.et_num_delegates(self._pointer)):
            delegate = _Delegate()
            self._call("et_get_delegate", ctypes.c_size_t(i), ctypes.byref(delegate))
            found[delegate.backend.decode()] = delegate.count
        return found

    def load(self) -> None:
        self._call("et_load")

    def bind(self, arrays: Sequence[np.ndarray]) -> None:
        self._bound = [np.ascontiguousarray(array) for array in arrays]
        for i, array in enumerate(self._bound):
            data = ctypes.c_void_p(array.ctypes.data)
            self._call("et_bind_input", ctypes.c_size_t(i), data, ctypes.c_size_t(array.nbytes))

    def set_inputs(self) -> None:
        self._call("et_set_inputs")

    def execute(self) -> None:
        self._call("et_execute")

    def read(self, index: int) -> np.ndarray:
        spec = self.outputs[index]
        array = np.empty(spec.shape, spec.dtype)
        data = ctypes.c_void_p(array.ctypes.data)
        self._call("et_read_output", ctypes.c_size_t(index), data, ctypes.c_size_t(array.nbytes))
        return array

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.bind(arrays)
        self.set_inputs()
        self.execute()
        return [self.read(i) for i in range(len(self.outputs))]

    def _specs(self, kind: str) -> list[Spec]:
        specs = []
        for i in range(getattr(self._shim.c, f"et_num_{kind}s")(self._pointer)):
            spec = _Spec()
            self._call(f"et_{kind}_spec", ctypes.c_size_t(i), ctypes.byref(spec))
            specs.append(Spec(spec.dtype.decode(), tuple(spec.shape[: spec.rank]), spec.nbytes))
        return specs

    def _call(self, name: str, *arguments: object) -> None:
        self._shim.check(getattr(self._shim.c, name)(self._pointer, *arguments))
