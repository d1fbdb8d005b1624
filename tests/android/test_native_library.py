"""The arm64 library behind ExecuTorch's Android API, as an npm package ships it, against that API's own classes."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / ".toolchains/android_api"
LIBRARY = TOOLS / "libexecutorch-arm64.so"
JAR = TOOLS / "executorch-android-api.jar"
CLASSES = ("Module", "ExecuTorchRuntime")
"""Classes with native methods of those that the app uses."""

AARCH64 = 183
LOAD = 1
PAGE_BYTES = 16 << 10
"""Android 15 runs on kernels with such pages, which do not load a library that is aligned to less."""

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="run tools/toolchains/android_api.sh")


@pytest.fixture(scope="module")
def library() -> bytes:
    return LIBRARY.read_bytes()


def test_library_is_aligned_to_pages_of_16_kib(library: bytes) -> None:
    assert library[:6] == b"\x7fELF\x02\x01"
    (machine,) = struct.unpack_from("<H", library, 18)
    (headers_at,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    assert machine == AARCH64
    headers = [struct.unpack_from("<II6Q", library, headers_at + size * index) for index in range(count)]
    loads = [header for header in headers if header[0] == LOAD]
    assert len(loads) >= 2
    for _, _, offset, address, *_, alignment in loads:
        assert alignment % PAGE_BYTES == 0
        assert (address - offset) % PAGE_BYTES == 0


def test_native_methods_of_the_api_are_registered_by_the_library(library: bytes) -> None:
    """The library registers them by name and signature when it is loaded (fbjni), not by exported symbols."""
    if not shutil.which("javap"):
        pytest.skip("javap is not installed: install a JDK")
    names = [f"org.pytorch.executorch.{name}" for name in CLASSES]
    listed = subprocess.run(
        ["javap", "-private", "-s", "-cp", JAR, *names], capture_output=True, text=True, check=True
    ).stdout
    methods = re.findall(r"\bnative [^(]* (\w+)\([^)]*\);\s+descriptor: (\S+)", listed)
    assert {name for name, _ in methods} >= {
        "initHybrid",
        "loadMethodNative",
        "executeNative",
        "getRegisteredBackends",
    }
    strings = set(library.split(b"\0"))
    assert b"JNI_OnLoad" in strings
    assert not {text for method in methods for text in method if text.encode() not in strings}
