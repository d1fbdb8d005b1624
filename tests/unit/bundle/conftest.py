"""A bundle that is made and run once, and copies of its journal to spoil."""

import shutil
from pathlib import Path

import pytest

from luts.format.store import LutStore
from tests.support.bundle_world import make_bundle, run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Facts about a bundle, and the journal of a whole run of it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BLOCKTIME_CACHE", str(folder / "cache"))
        made = make_bundle(folder / "nano.bundle")
    return made, run(folder / "nano.bundle", folder)


@pytest.fixture
def made(once):
    return once[0]


@pytest.fixture
def finished(once, tmp_path):
    return Path(shutil.copyfile(once[1], tmp_path / "journal.jsonl"))


@pytest.fixture
def store(tmp_path):
    return LutStore([tmp_path / "luts"])
