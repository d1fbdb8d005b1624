"""Names of the blocks that stay fp32: as options and in recipe files."""

import json

import pytest

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.tasks.quantization import MixedPrecision, read_mixed_precision, stays_fp32

KEYS = ("conv(in=3,out=8,k=3,s=2)@16", "head.fc(in=8,classes=10)@8")
WIDER = ("conv(in=3,out=16,k=3,s=2)@16", "head.fc(in=16,classes=10)@8")


@pytest.fixture
def file(tmp_path):
    def write(name, **fields):
        path = tmp_path / f"{name}.json"
        MixedPrecision(**fields).write(path)
        return str(path)

    return write


def test_places_and_paths_are_of_any_network() -> None:
    assert stays_fp32(("0", "blocks.2"), KEYS, "") == ("0", "blocks.2")
    assert stays_fp32((), KEYS, "") == ()


def test_a_file_counts_for_its_own_network_alone(file) -> None:
    ours, other = file("ours", blocks=KEYS, fp32=("0",)), file("other", blocks=WIDER, fp32=("1",))
    timm = file("timm", module="timm:resnet18@128", fp32=("layer1.0",))
    every = (ours, other, timm)
    assert stays_fp32(every, KEYS, "") == ("0",)
    assert stays_fp32(every, WIDER, "") == ("1",)
    assert stays_fp32(every, (), "timm:resnet18") == ("layer1.0",)
    assert stays_fp32(("1", ours), KEYS, "") == ("1", "0")
    with pytest.raises(UsageError, match=r"other\.json is of another network"):
        stays_fp32((other,), KEYS, "")


def test_the_number_of_classes_does_not_matter(file) -> None:
    twenty = (KEYS[0], "head.fc(in=8,classes=20)@8")
    assert stays_fp32((file("ours", blocks=KEYS, fp32=("0",)),), twenty, "") == ("0",)


def test_a_network_that_needs_no_mix_is_reported(file) -> None:
    with pytest.raises(UsageError, match="use --precision int8"):
        stays_fp32((file("ours", blocks=KEYS, fp32=()),), KEYS, "")


@pytest.mark.parametrize(
    "document", ["no", "{}", {"format": 2, "fp32": []}, {"format": 1, "fp32": ["0"] * 1025}, {"fp32": [3]}]
)
def test_a_damaged_file_is_one_line(document, tmp_path) -> None:
    path = tmp_path / "mix.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(InvalidArtifactError, match="not a file of bench sensitivity"):
        read_mixed_precision(path)
    with pytest.raises(InvalidArtifactError, match=r"nowhere\.json"):
        read_mixed_precision(tmp_path / "nowhere.json")
