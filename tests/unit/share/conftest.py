"""LUTs to share, as small as LUTs that verify can be."""

import subprocess
from dataclasses import replace

import pytest

from luts.format.store import LutStore
from luts.share.location import location
from luts.share.repository import Repository
from tests.support.lut_world import small_study


@pytest.fixture(scope="session")
def lut():
    return small_study(designs=3, segments=2, rounds=4).lut()


@pytest.fixture(scope="session")
def refs(lut, tmp_path_factory):
    """It and the same of another device, in a store that tests only read."""
    store = LutStore([tmp_path_factory.mktemp("made")], lambda _: None)
    other = lut.meta.device.model_copy(update={"name": "other", "model": "another"})
    for meta in (lut.meta, lut.meta.model_copy(update={"device": other})):
        store.write(replace(lut, meta=meta))
    return store.list()


@pytest.fixture
def place(tmp_path):
    return Repository(location(str(tmp_path / "place")), pytest.fail)


@pytest.fixture
def mine(tmp_path):
    return LutStore([tmp_path / "mine"], lambda _: None)


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Private and public key that openssl made, and another public one."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("one", "two"):
        private = folder / f"{name}.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        public = ["openssl", "pkey", "-in", private, "-pubout", "-out", folder / f"{name}.pub"]
        subprocess.run(public, check=True)
    return folder / "one.pem", folder / "one.pub", folder / "two.pub"
