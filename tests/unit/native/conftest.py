"""The built native libraries, and small models that were exported for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from native_models import Exported

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE))


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
    from native_models import export_convolution

    return export_convolution(tmp_path_factory.mktemp("native") / "convolution.pte")


@pytest.fixture(scope="session")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """No delegate, two inputs of unlike types (int64[4], float32[4, 5]), two outputs (float32, bool)."""
    from native_models import export_lookup

    return export_lookup(tmp_path_factory.mktemp("native") / "lookup.pte")
