"""LUTs that come with the package hold what they say, and say what they are."""

from pathlib import Path

import pytest

import luts
from luts.format.store import LutStore, read_lut
from luts.verify import verify_lut

SHIPPED = LutStore([Path(luts.__file__).parent / "data"]).list()


@pytest.mark.parametrize("ref", SHIPPED, ids=str)
def test_it_verifies(ref) -> None:
    assert verify_lut(ref.path).meta.measured == "measured"


def test_a_full_space_is_there_with_one_and_two_threads() -> None:
    names = {(ref.space, ref.variant) for ref in SHIPPED}
    assert {("autovit-xxs", f"executorch-xnnpack-fp32-t{threads}") for threads in (1, 2)} <= names


@pytest.mark.parametrize("ref", SHIPPED, ids=str)
def test_it_names_its_machine(ref) -> None:
    device = read_lut(ref.path).meta.device
    assert ref.device == device.name == "linux-x86-64"
    assert "Linux" in device.os
