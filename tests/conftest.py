"""What several folders share: `profiling`, `tiny_model`, and models that are exported once for all tests.

Each of xdist's workers, and each process that a test starts, computes with one thread: with more they would wait
for each other's cores.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_model import Exported, export_tiny

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def export_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of exported models for all tests and all of xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "export-cache"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small model for agents to run."""
    return export_tiny(tmp_path_factory.mktemp("model"))
