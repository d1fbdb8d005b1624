"""Which version of a LUT its name means, pins, and removing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import luts.format.store
from luts.build import build_lut
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import Lut
from luts.format.schema import HeldoutError
from luts.format.store import LutRef, LutStore
from tests.support.lut_world import make_study, make_world

NAME = "host/toy/simulated-t1"


@pytest.fixture(scope="module")
def lut() -> Lut:
    generator = np.random.default_rng(0)
    study = make_study(generator, make_world(generator, slots=3), designs=4, segments=1, rounds=5)
    return build_lut(study.inputs, study.models, study.estimation, study.features)


def predicting(
    lut: Lut, error: tuple[float, int] | None, entries: slice = slice(None), build: str = "", day: int = 1
) -> Lut:
    """The LUT with another MAPE on so many held-out networks; which entries follow from what is not looked at.

    `build` is the operating system's, `day` that of its making.
    """
    device = lut.meta.device.model_copy(update={"os": "iOS", "os_build": build})
    told = error and HeldoutError(
        models=error[1], mape=error[0], within_5=1.0, within_10=1.0, kendall_tau=None
    )
    created = f"2026-11-{day:02}T12:00:00+00:00"
    meta = lut.meta.model_copy(update={"heldout_error": told, "device": device, "created": created})
    return Lut(meta, lut.entries[entries], lut.models, lut.samples)


class Told(LutStore):
    """A store that remembers its warnings."""

    def __init__(self, *roots: Path) -> None:
        self.notes: list[str] = []
        super().__init__(roots, self.notes.append)


@pytest.mark.parametrize(
    ("errors", "taken"),
    [
        ([(0.008, 12), (0.03, 2)], 1),  # poorer by far
        ([(0.008, 12), (0.0099, 12)], 2),  # within a quarter: as good, and newer
        ([(0.008, 12), (0.0101, 12)], 1),
        ([(0.008, 12), (0.0085, 2)], 1),  # 0.0085 (1 + 0.756 / sqrt 2) = 0.0130, and 0.008 * 1.218 = 0.0097
        ([(0.008, 12), (0.0075, 2)], 2),  # 0.0115 is within a quarter of it
        ([(0.03, 2), (0.008, 12), (0.05, 30)], 2),
        ([(0.02, 12), (0.008, 12)], 2),
        ([(0.008, 12), None], 1),
        ([None, (0.5, 3)], 2),
        ([None, None], 2),
    ],
)
def test_a_name_means_the_version_that_predicts_best(lut, tmp_path, errors, taken):
    store = Told(tmp_path)
    for error in errors:
        store.write(predicting(lut, error))
    told = len(store.notes)
    assert store.resolve("host").version == store.resolve(NAME).version == taken
    assert [store.resolve(f"{NAME}/v{n}").version for n in range(1, len(errors) + 1)] == [
        *range(1, len(errors) + 1)
    ]
    assert len(store.notes) == told, "told once"
    assert told == (taken != len(errors))


def test_a_poorer_one_is_told_when_it_is_written_and_when_its_name_is_used(lut, tmp_path):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.008, 12)))
    store.write(predicting(lut, (0.031, 2)))
    note = (
        f"{NAME}: v1 is taken: v2 is newer and is poorer (MAPE 3.10 % on 2 held-out networks; "
        "v1: MAPE 0.80 % on 12 held-out networks); vN names another, bench lut pin fixes one"
    )
    assert store.notes == [note]
    later = Told(tmp_path)
    later.load("toy")
    assert later.notes == [note]
    with pytest.warns(UserWarning, match="v1 is taken"):
        luts.format.store.load_lut("toy", tmp_path)


def test_a_newer_one_that_knows_other_blocks_is_not_compared(lut, tmp_path):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.008, 12), slice(1, None)))
    store.write(predicting(lut, (0.03, 2), slice(0, -1)))
    assert (store.resolve("host").version, store.notes) == (2, [])
    store.write(predicting(lut, (0.031, 12)))
    assert store.resolve("host").version == 3
    store.write(predicting(lut, (0.1, 12), slice(0, 2)))  # 2 and 3 know these blocks as well, and better
    assert store.resolve("host").version == 3


def test_after_an_update_of_the_device_a_better_lut_of_before_is_not_taken_and_named(lut, tmp_path):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.008, 12), build="21A"))
    store.write(predicting(lut, (0.03, 12), build="22B", day=2))
    assert store.resolve("toy").version == 2
    runtime = lut.meta.versions.runtime
    assert store.notes == [
        f"{NAME}: v2 is taken (MAPE 3.00 % on 12 held-out networks), since it is of iOS 22B, {runtime}: "
        f"v1 predicts better (MAPE 0.80 % on 12 held-out networks), but is of iOS 21A, {runtime}; "
        "vN names another, bench lut pin fixes one"
    ]
    store.write(predicting(lut, (0.02, 12), build="22B", day=3))
    store.write(predicting(lut, (0.05, 12), build="22B", day=4))
    assert Told(tmp_path).resolve("toy").version == 3, "compared are those of the newest build alone"


def test_a_newer_runtime_counts_as_an_update_does(lut, tmp_path):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.008, 12)))
    versions = lut.meta.versions.model_copy(update={"runtime": "executorch 9.9"})
    later = predicting(lut, (0.03, 12), day=2)
    meta = later.meta.model_copy(update={"versions": versions})
    store.write(Lut(meta, later.entries, later.models, later.samples))
    assert store.resolve("toy").version == 2


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"policy": {"pace_us": 33_333, "warmup_ms": 0}}, "30 calls a second"),
        ({"fixed_performance": True}, "fixed clocks"),
    ],
)
def test_luts_of_another_pace_or_of_fixed_clocks_are_not_compared(lut, tmp_path, changed, told):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.008, 12)))
    later = predicting(lut, (0.03, 12), day=2)
    meta = later.meta.model_copy(update=changed)
    store.write(Lut(meta, later.entries, later.models, later.samples))
    assert store.resolve("toy").version == 2
    assert f"since it is of iOS, {lut.meta.versions.runtime}, {told}: v1 predicts better" in store.notes[0]
    store.write(predicting(lut, (0.05, 12), day=3))
    assert Told(tmp_path).resolve("toy").version == 1


def test_a_lut_rebuilt_from_old_samples_is_of_the_old_build(lut, tmp_path):
    store = Told(tmp_path)
    for build, day in (("21A", 1), ("22B", 2), ("21A", 1)):
        store.write(predicting(lut, (0.01, 12), build=build, day=day))
    assert store.resolve("toy").version == 2
    assert "v2 is taken: v3 is newer and of an older build, iOS 21A" in store.notes[-1]


def test_a_build_that_is_not_known_is_compared_with_all(lut, tmp_path):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.008, 12), build="21A"))
    store.write(predicting(lut, (0.03, 12), build="", day=2))
    assert store.resolve("toy").version == 1


def test_a_broken_newest_one_is_passed_over_and_told(lut, tmp_path):
    store = Told(tmp_path)
    store.write(predicting(lut, (0.03, 2)))
    meta = store.write(predicting(lut, (0.008, 12))) / "lut.json"
    meta.chmod(0o644)
    meta.write_text("{}")
    assert store.resolve("host").version == 1
    assert "v2 is newer and is broken" in store.notes[0]
    with pytest.raises(InvalidArtifactError, match=r"LUT in .*/v2: lut\.json"):
        store.load(f"{NAME}/v2")


def test_a_pinned_version_is_what_the_name_means(lut, tmp_path):
    store = Told(tmp_path)
    for error in ((0.008, 12), (0.03, 2)):
        store.write(predicting(lut, error))
    store.pin(store.resolve(f"{NAME}/v2"))
    again = Told(tmp_path)
    assert (again.resolve("toy").version, again.notes) == (2, [])
    again.write(predicting(lut, (0.001, 40)))
    assert again.resolve("toy").version == 2
    assert again.notes == [f"{NAME} goes on meaning v2, which is pinned"]
    again.unpin(NAME)
    assert again.resolve("toy").version == 3


def test_a_packaged_version_can_be_pinned_and_not_removed(lut, tmp_path, monkeypatch):
    LutStore([tmp_path / "package"]).write(predicting(lut, (0.03, 2)))
    monkeypatch.setattr(luts.format.store, "PACKAGED", tmp_path / "package")
    store = Told(tmp_path / "user", tmp_path / "package")
    store.write(predicting(lut, (0.008, 12)))
    packaged = store.resolve(f"{NAME}/v1")
    store.pin(packaged)
    assert store.resolve("toy") == packaged
    with pytest.raises(UsageError, match="came with the package and stays"):
        store.remove(packaged)
    assert store.resolve("toy") == packaged


def test_a_removed_version_is_gone_with_its_pin_and_its_number_is_not_given_again(lut, tmp_path):
    store = Told(tmp_path)
    first, second = (store.write(predicting(lut, error)) for error in ((0.03, 2), (0.008, 12)))
    store.pin(store.resolve(first))
    store.remove(store.resolve(first))
    assert [ref.version for ref in store.list()] == [2]
    assert [path.name for path in first.iterdir()] == ["removed.txt"]
    assert store.resolve("toy").path == second
    store.remove(store.resolve(second))
    assert store.list() == []
    assert store.write(lut).name == "v3"


def test_only_what_lies_in_the_store_is_removed_or_pinned(lut, tmp_path):
    store = Told(tmp_path / "luts")
    copy = tmp_path / "copy" / NAME / "v1"
    shutil.copytree(store.write(lut), copy)
    for change in (store.remove, store.pin):
        with pytest.raises(UsageError, match="not in a folder of LUTs"):
            change(store.resolve(copy))
    assert (copy / "lut.json").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("v7\n", "v7 is pinned, but not there"), ("one\n", "not a version")]
)
def test_a_pin_that_names_nothing_is_told_in_a_line(lut, tmp_path, text, said):
    store = Told(tmp_path)
    store.write(lut)
    (tmp_path / NAME / "pinned.txt").write_text(text)
    assert store.write(lut).name == "v2"
    assert said in store.notes[0]
    with pytest.raises(InvalidArtifactError, match=said):
        store.load("toy")
    assert store.load(f"{NAME}/v1") == lut
    store.pin(LutRef("host", "toy", "simulated-t1", 1, tmp_path / NAME / "v1"))
    assert store.resolve("toy").version == 1
