"""A whole run, as `make demo` leaves it."""

import pytest

from orchestrator.report.inputs import read_run
from tests.support.report_world import write_run


@pytest.fixture
def store(tmp_path):
    return write_run(tmp_path)


@pytest.fixture
def run(tmp_path, store):
    """Return the run's folder."""
    return tmp_path / "run"


@pytest.fixture
def inputs(run, store):
    return read_run(run, store)
