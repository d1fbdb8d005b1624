"""Which version of a LUT its name means, pins, and removing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import luts.format.store
from luts.build import build_lut
from luts.format.lut import Lut
from luts.format.schema import HeldoutError
from luts.format.store import LutRef, LutStore
from tests.support.errors import raises
from tests.support.lut_world import make_study, make_world

NAME = "host/toy/simulated-t1"


@pytest.fixture(scope="module")
def lut() -> Lut:
    generator = np.random.default_rng(0)
    study = make_study(generator, make_world(generator, slots=3), designs=4, segments=1, rounds=5)
    return build_lut(study.inputs, study.models, study.estimation, study.features)


def with_mape(lut: Lut, mape: float | None) -> Lut:
    error = mape and HeldoutError(models=12, mape=mape, within_5=1.0, within_10=1.0, kendall_tau=None)
    return Lut(lut.meta.model_copy(update={"heldout_error": error}), lut.entries, lut.models, lut.samples)


class RecordingStore(LutStore):
    """A store that remembers its warnings."""

    def __init__(self, *roots: Path) -> None:
        self.warnings: list[str] = []
        super().__init__(roots, self.warnings.append)


def test_a_name_means_its_newest_version(lut, tmp_path):
    store = RecordingStore(tmp_path)
    for mape in (0.008, 0.0081, None, 0.008):
        store.write(with_mape(lut, mape))
    assert store.resolve("host").version == store.resolve(NAME).version == 4
    for number in range(1, 5):
        assert store.resolve(f"{NAME}/v{number}").version == store.resolve(f"toy@v{number}").version == number
    assert store.warnings == []


@pytest.mark.parametrize(("mape", "worse"), [(0.0099, False), (0.0101, True), (0.001, False), (None, False)])
def test_worse_version_is_reported(lut, tmp_path, mape, worse):
    store = RecordingStore(tmp_path)
    store.write(with_mape(lut, 0.008))
    store.write(with_mape(lut, mape))
    assert store.resolve("toy").version == 2
    assert len(store.warnings) == worse
    assert all(f"bench lut pin {NAME}/v1" in warning for warning in store.warnings)


def test_a_pinned_version_is_what_the_name_means(lut, tmp_path):
    store = RecordingStore(tmp_path)
    store.write(lut)
    store.write(lut)
    store.pin(store.resolve(f"{NAME}/v1"))
    again = RecordingStore(tmp_path)
    assert (again.resolve("toy").version, again.warnings) == (1, [])
    again.write(lut)
    assert again.resolve("toy").version == 1
    assert "still means v1" in again.warnings[0]
    again.unpin(NAME)
    assert again.resolve("toy").version == 3


def test_a_packaged_version_can_be_pinned_and_not_removed(lut, tmp_path, monkeypatch):
    LutStore([tmp_path / "package"]).write(lut)
    monkeypatch.setattr(luts.format.store, "PACKAGED", tmp_path / "package")
    store = LutStore([tmp_path / "user", tmp_path / "package"])
    store.write(lut)
    packaged = store.resolve(f"{NAME}/v1")
    store.pin(packaged)
    assert store.resolve("toy") == packaged
    with raises("packaged_lut"):
        store.remove(packaged)
    assert store.resolve("toy") == packaged


def test_a_removed_version_loses_its_pin_and_keeps_its_number(lut, tmp_path):
    store = LutStore([tmp_path])
    first, second = store.write(lut), store.write(lut)
    store.pin(store.resolve(first))
    store.remove(store.resolve(first))
    assert [ref.version for ref in store.list()] == [2]
    assert [path.name for path in first.iterdir()] == ["removed.txt"]
    assert store.resolve("toy").path == second
    store.remove(store.resolve(second))
    assert store.list() == []
    assert store.write(lut).name == "v3"


def test_only_luts_of_the_store_are_removed_or_pinned(lut, tmp_path):
    store = LutStore([tmp_path / "luts"])
    copy = tmp_path / "copy" / NAME / "v1"
    shutil.copytree(store.write(lut), copy)
    for change in (store.remove, store.pin):
        with raises("lut_outside_store"):
            change(store.resolve(copy))
    assert (copy / "lut.json").exists()


@pytest.mark.parametrize(("text", "code"), [("v7\n", "pinned_version_missing"), ("one\n", "invalid_pin")])
def test_a_damaged_pin_is_reported_and_can_be_replaced(lut, tmp_path, text, code):
    store = RecordingStore(tmp_path)
    store.write(lut)
    (tmp_path / NAME / "pinned.txt").write_text(text)
    assert store.write(lut).name == "v2"
    assert len(store.warnings) == 1
    with raises(code):
        store.load("toy")
    assert store.load(f"{NAME}/v1") == lut
    store.pin(LutRef("host", "toy", "simulated-t1", 1, tmp_path / NAME / "v1"))
    assert store.resolve("toy").version == 1
