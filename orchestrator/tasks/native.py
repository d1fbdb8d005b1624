"""Build the Python agent's native functions on this machine: by the checkout's script, else by g++."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from luts.format.errors import BlocktimeError, StorageError
from luts.format.provenance import ROOT, is_checkout, repo_file
from orchestrator.agent.device import built_dir

_BUILD_TIMEOUT_S = 1800
_SOURCES = ("affinity", "error", "etshim", "loaded_method", "program_file", "runtime", "timing")
_DEFINITIONS = ("C10_USING_CUSTOM_GENERATED_MACROS", "ET_EVENT_TRACER_ENABLED", "ET_USE_THREADPOOL")
"""Definitions of ExecuTorch's CMake package, which its headers need."""
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
)
_LIBRARIES = (
    "executorch_threadpool",
    "executorch_kernels_optimized",
    "executorch_backend_xnnpack",
    "executorch",
)


def build_native() -> Path:
    """Build the library with which the Python agent times calls without the interpreter, and return its path.

    Raises:
        BlocktimeError: this is not Linux, g++ or ExecuTorch is missing, or compiling failed.
        StorageError: it can't be written.
    """
    if sys.platform != "linux":
        raise BlocktimeError(
            "native functions can be built on Linux only; elsewhere the host agent works without them",
            code="not_linux",
        )
    if is_checkout():
        _run([str(ROOT / "tools" / "build_native.sh")])
    else:
        _compile(repo_file("native/include/etshim.h").parents[1], built_dir() / "native" / "libetshim.so")
    from orchestrator.agent.native import ShimMissingError, find_shim

    try:
        find_shim()
    except ShimMissingError as error:
        raise BlocktimeError(f"built, but {error}", code="native_build_failed") from error
    return built_dir() / "native" / "libetshim.so"


def sources_digest(native: Path) -> str:
    """Return the digest of the library's sources, as in native/CMakeLists.txt.

    Equal sources are the same agent.
    """
    files = [native / "include" / "etshim.h", *(native / "src" / f"{name}.cpp" for name in _SOURCES)]
    files += [path for name in _SOURCES if (path := native / "src" / f"{name}.h").exists()]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)]
    return hashlib.sha256(";".join(digests).encode()).hexdigest()


def _compile(native: Path, library: Path) -> None:
    if not native.is_dir():
        raise BlocktimeError(
            f"the sources are not installed ({native} does not exist); install blocktime again",
            code="sources_missing",
        )
    if shutil.which("g++") is None:
        raise BlocktimeError(
            "g++ is not installed; install it (Debian and Ubuntu: apt-get install g++)", code="tool_missing"
        )
    spec = find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise BlocktimeError("executorch is not installed; pip install executorch", code="package_missing")
    from executorch.version import __version__ as executorch_version

    runtime = Path(spec.submodule_search_locations[0]).resolve()
    include, lib = runtime / "include", runtime / "lib"
    definitions = [
        *_DEFINITIONS,
        f'EXECUTORCH_VERSION="{executorch_version}"',
        f'SHIM_VERSION="{sources_digest(native)}"',
    ]
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix=".building-") as folder:
            made = Path(folder) / library.name
            _run(
                [
                    *("g++", *_FLAGS, *(f"-D{definition}" for definition in definitions)),
                    *("-I", str(native / "include"), "-isystem", str(include)),
                    *("-isystem", str(include / "executorch/runtime/core/portable_type/c10")),
                    *(str(native / "src" / f"{name}.cpp") for name in _SOURCES),
                    # Kernels and XNNPACK register themselves: nothing refers to them.
                    *("-L", str(lib), "-Wl,--no-as-needed", f"-Wl,-rpath,{lib}"),
                    *(f"-l{name}" for name in _LIBRARIES),
                    *("-o", str(made)),
                ]
            )
            made.replace(library)
    except OSError as error:
        raise StorageError(
            f"cannot write {library} ({error.strerror}); set BLOCKTIME_AGENTS to a folder that you can write to",
            code="cannot_write",
        ) from error


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BlocktimeError(
            f"{Path(command[0]).name} took longer than {_BUILD_TIMEOUT_S} s; try again",
            code="native_build_failed",
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        message = next((line for line in lines if "error" in line), lines[-1] if lines else "no message")
        raise BlocktimeError(
            f"{Path(command[0]).name} failed: {message.strip()[:300]}", code="native_build_failed"
        )
