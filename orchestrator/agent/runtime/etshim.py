"""native/include/etshim.h through ctypes: ExecuTorch as plain C, which times without the interpreter.

`bench native` builds the library over the runtime's libraries of the installed executorch package, which
are those of its Python binding: a process that loads both has one runtime and one pool of threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from executorch.version import __version__ as executorch_version

from orchestrator.agent.device.built import built_dir

_BUILD = "run `bench native`"

_MODEL = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_MAX_RANK = 16


class ShimError(RuntimeError):
    """A call failed; `code` is ExecuTorch's (runtime/core/error.h)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ShimMissing(Exception):
    """There is no library that can be used; the text says why, in a line with the next step."""


class SpecStruct(ctypes.Structure):
    """et_tensor_spec."""

    _fields_ = (
        ("dtype", ctypes.c_char_p),
        ("rank", _SIZE),
        ("shape", ctypes.c_int64 * _MAX_RANK),
        ("nbytes", _SIZE),
    )


class DelegateStruct(ctypes.Structure):
    """et_delegate."""

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
"""Functions that fail with a code."""


class Shim:
    """The library; its functions are attributes of `c`, and those that can fail raise ShimError."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it can't be loaded, AttributeError where it is of another version."""
        self.c = ctypes.CDLL(os.fspath(path))
        for name, (result, arguments) in _RESULTS.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        for name, arguments in _CALLS.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes, function.errcheck = ctypes.c_int32, arguments, self._check

    def version(self) -> str:
        """Digest of the sources that the library was built from."""
        return str(self.c.et_shim_version().decode())

    def runtime_version(self) -> str:
        """ExecuTorch's."""
        return str(self.c.et_runtime_version().decode())

    def backends(self) -> list[str]:
        """Those that are registered and available."""
        return [self.c.et_backend_name(i).decode() for i in range(self.c.et_num_backends())]

    def open(self, path: Path) -> ctypes.c_void_p:
        """Verifies the file; the model is to be closed."""
        model = _MODEL()
        self.c.et_open(os.fsencode(path), ctypes.byref(model))
        return model

    def _check(self, code: int, _function: object, _arguments: Sequence[object]) -> int:
        if code:
            raise ShimError(code, self.c.et_last_error().decode(errors="replace"))
        return code


def find_shim() -> Shim:
    """The library that was built for the installed ExecuTorch. Raises ShimMissing."""
    path = built_dir() / "native" / "libetshim.so"
    if not path.is_file():
        raise ShimMissing(f"native calls are not built ({path} is not there); {_BUILD}")
    try:
        shim = Shim(path)
    except (OSError, AttributeError) as error:
        raise ShimMissing(f"{path} can't be used ({' '.join(str(error).split())[:200]}); {_BUILD}") from None
    if shim.runtime_version() != executorch_version:
        raise ShimMissing(
            f"{path} was built for ExecuTorch {shim.runtime_version()}, not {executorch_version}; {_BUILD}"
        )
    return shim
