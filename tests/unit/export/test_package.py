import stat
import zipfile
from pathlib import Path

import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.export.artifacts.artifact import deliver, pack
from tests.support.damaged_zips import DAMAGES, damage
from tests.support.errors import raises


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / "model.mlpackage"
    (folder / "Data" / "weights").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (folder / "Data" / "weights" / "weight.bin").write_bytes(bytes(1000))
    return folder


def test_equal_packages_are_equal_stored_zips(package: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.mlpackage.zip", tmp_path / "two.mlpackage.zip"
    pack(package, one)
    (package / "Manifest.json").touch()
    (package / "Manifest.json").chmod(0o600)
    pack(package, two)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == [
        "model.mlpackage/Data/weights/weight.bin",
        "model.mlpackage/Manifest.json",
    ]
    for entry in entries:
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.flag_bits == 0
        assert stat.S_ISREG(entry.external_attr >> 16)
        assert entry.compress_size == entry.file_size


def test_delivered_as_a_folder_or_as_the_zip(package: Path, tmp_path: Path) -> None:
    packed = tmp_path / "model.mlpackage.zip"
    pack(package, packed)
    for _ in range(2):
        folder = deliver(packed, tmp_path / "out" / "mine.mlpackage")
        assert (folder / "Data" / "weights" / "weight.bin").read_bytes() == bytes(1000)
        (folder / "stale").touch()
    folder = deliver(packed, folder)
    assert not (folder / "stale").exists()
    assert deliver(packed, tmp_path / "out" / "mine.zip").read_bytes() == packed.read_bytes()
    program = tmp_path / "model.pte"
    program.write_bytes(b"pte")
    assert deliver(program, tmp_path / "out" / "p.pte").read_bytes() == b"pte"


@pytest.mark.parametrize("name", ["../outside", "/outside", "model.mlpackage/../../outside", "beside"])
def test_nothing_is_written_outside_the_package(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "model.mlpackage.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(InvalidArtifactError, match=r"not a zip of one \.mlpackage"):
        deliver(packed, tmp_path / "out" / "m.mlpackage")
    assert not (tmp_path / "out" / "m.mlpackage").exists()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_package_is_one_line(package: Path, tmp_path: Path, name: str) -> None:
    packed = tmp_path / "model.mlpackage.zip"
    pack(package, packed)
    damage(packed, name)
    with pytest.raises(InvalidArtifactError, match=r"not a zip archive \([^)]+\); export it again"):
        deliver(packed, tmp_path / "m.mlpackage")


def test_undeliverable_packages(tmp_path: Path) -> None:
    packed = tmp_path / "model.mlpackage.zip"
    packed.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidArtifactError, match="export it again"):
        deliver(packed, tmp_path / "m.mlpackage")
    with raises("not_writable"):
        deliver(packed, packed / "below" / "m.zip")
