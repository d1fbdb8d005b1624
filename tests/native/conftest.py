"""The built native libraries, and small models that were exported for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.native_models import Exported, export_convolution, export_lookup

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def native() -> Path:
    """The folder of libetshim.so, libetjni.so, etbench and standin.jar."""
    missing = [tool for tool in ("g++", "javac") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    built = subprocess.run(
        [ROOT / "tools/build_native.sh", "--jni"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return ROOT / "build/native"


@pytest.fixture(scope="session")
def convolution(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One XNNPACK delegate, float32[1, 3, 32, 32] to float32[1, 8]."""
    return export_convolution(tmp_path_factory.mktemp("native") / "convolution.pte")


@pytest.fixture(scope="session")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """No delegate, two inputs of unlike types (int64[4], float32[4, 5]), two outputs (float32, bool)."""
    return export_lookup(tmp_path_factory.mktemp("native") / "lookup.pte")
