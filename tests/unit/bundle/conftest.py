"""A bundle that is made and run once, and copies of it to spoil."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from luts.format.store import LutStore
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks.bundle import BundleCommand, bundle
from orchestrator.tasks.plan import PlanOptions
from tests.support.bundle_world import POLICY, run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A bundle, and the journal of a whole run of it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BLOCKTIME_CACHE", str(folder / "cache"))
        made = bundle(
            BundleCommand(
                space="autovit-nano",
                kind="linux",
                output=folder / "nano.bundle",
                fixed_variant=Variant("simulated", "", threads=1),
                plan=PlanOptions(design=14, heldout=3, removals="none"),
                policy=POLICY,
            )
        )
    return made, run(made, folder)


@pytest.fixture
def made(once, tmp_path):
    path = tmp_path / "nano.bundle"
    shutil.copyfile(once[0].path, path)
    return replace(once[0], path=path)


@pytest.fixture
def finished(once, tmp_path):
    return Path(shutil.copyfile(once[1], tmp_path / "journal.jsonl"))


@pytest.fixture
def store(tmp_path):
    return LutStore([tmp_path / "luts"])
