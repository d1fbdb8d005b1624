from typing import Any

import pytest
from pydantic import ValidationError

from luts.format.schema import MAX_BLOCKS, KeyFeatures, LutInputs
from tests.support.lut_world import lut_inputs, model_spec


def refused(**fields: Any) -> None:
    with pytest.raises(ValidationError):
        LutInputs.model_validate({**lut_inputs().model_dump(), **fields})


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Upper", "x" * 65, "a\n"])
def test_names_that_are_no_folders_are_refused(name: str) -> None:
    refused(space=name)
    refused(variant=name)
    refused(device={**lut_inputs().device.model_dump(), "name": name})


def test_foreign_fields_dates_and_numbers_are_refused() -> None:
    refused(surprise=1)
    refused(created="yesterday")
    refused(measured="guessed")
    refused(policy={"rounds": float("nan")})
    refused(policy={f"constant{number}": 1 for number in range(65)})
    refused(policy={"text": "x" * 257})


@pytest.mark.parametrize("key", ["two words", "", "x" * 161, "tab\t", "ümlaut", "line\n"])
def test_keys_are_printable_and_without_spaces(key: str) -> None:
    with pytest.raises(ValidationError):
        model_spec("m", [key], "design")


def test_a_network_has_a_bounded_number_of_blocks() -> None:
    model_spec("m", ["a"] * MAX_BLOCKS, "design")
    for blocks in ([], ["a"] * (MAX_BLOCKS + 1)):
        with pytest.raises(ValidationError):
            model_spec("m", blocks, "design")


@pytest.mark.parametrize(
    ("role", "extra"),
    [
        ("removal", {}),
        ("removal", {"base_id": "b"}),
        ("design", {"migrated_operations": "0"}),
        ("design", {"base_id": "b", "removed_key": "k"}),
        ("heldout", {"split": "fit"}),
        ("design", {"split": "heldout"}),
    ],
)
def test_roles_that_contradict_themselves_are_refused(role: str, extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model_spec("m", ["a"], role, **extra)


def test_values_are_frozen_and_counts_bounded() -> None:
    features = KeyFeatures(kind="conv", macs=1, traffic_bytes=2)
    with pytest.raises(ValidationError):
        features.macs = 3
    with pytest.raises(ValidationError):
        KeyFeatures(kind="conv", macs=-1, traffic_bytes=2)
    with pytest.raises(ValidationError):
        KeyFeatures(kind="conv", macs=2**60, traffic_bytes=2)
