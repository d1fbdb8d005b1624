"""All of libetshim.so's models, over the agent's ctypes. Imports no runtime: a child process starts quickly."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.agent import native as etshim
from orchestrator.agent.native import DelegateStruct, SpecStruct

INVALID_STATE = 0x02
NOT_SUPPORTED = 0x10
INVALID_ARGUMENT = 0x12


@dataclass(frozen=True)
class Spec:
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Shim(etshim.Shim):
    """The library of the folder that tools/build_native.sh fills."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "libetshim.so")

    def model(self, path: Path) -> Model:
        return Model(self, self.open(path))


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
            delegate = DelegateStruct()
            self._call("et_get_delegate", i, ctypes.byref(delegate))
            found[delegate.backend.decode()] = delegate.count
        return found

    def load(self) -> None:
        self._call("et_load")

    def bind(self, arrays: Sequence[np.ndarray]) -> None:
        self._bound = [np.ascontiguousarray(array) for array in arrays]
        for i, array in enumerate(self._bound):
            self._call("et_bind_input", i, array.ctypes.data, array.nbytes)

    def set_inputs(self) -> None:
        self._call("et_set_inputs")

    def execute(self) -> None:
        self._call("et_execute")

    @staticmethod
    def time_visits(models: Sequence[Model]) -> np.ndarray:
        latencies_ns = np.zeros(len(models), np.uint64)
        pointers = (ctypes.c_void_p * len(models))(*(model._pointer.value for model in models))
        models[0]._shim.c.et_time_visits(pointers, len(models), latencies_ns.ctypes.data)
        return latencies_ns

    def read(self, index: int) -> np.ndarray:
        spec = self.outputs[index]
        array = np.empty(spec.shape, spec.dtype)
        self._call("et_read_output", index, array.ctypes.data, array.nbytes)
        return array

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.bind(arrays)
        self.set_inputs()
        self.execute()
        return [self.read(i) for i in range(len(self.outputs))]

    def _specs(self, kind: str) -> list[Spec]:
        specs = []
        for i in range(getattr(self._shim.c, f"et_num_{kind}s")(self._pointer)):
            spec = SpecStruct()
            self._call(f"et_{kind}_spec", i, ctypes.byref(spec))
            specs.append(Spec(spec.dtype.decode(), tuple(spec.shape[: spec.rank]), spec.nbytes))
        return specs

    def _call(self, name: str, *arguments: object) -> None:
        getattr(self._shim.c, name)(self._pointer, *arguments)
