import os
import time
from pathlib import Path

import pytest

from orchestrator.export.artifacts.artifact import STALE_S
from orchestrator.export.reuse.fragment import (
    MAX_FRAGMENT_BYTES,
    Fragment,
    FragmentStore,
    GraphValue,
    Node,
    Weight,
)

IDENTITY = "0" * 64
FRAGMENT = Fragment(
    nodes=(Node(kind="XNNSigmoid", fields={"input_id": -1, "output_id": 0, "flags": 0}, handle=1),),
    values=(
        GraphValue(role="computed", dims=(1, 4)),
        GraphValue(role="constant", dims=(4,), weight=Weight(name="fc.bias", permutation=(0,))),
    ),
    output=0,
    handles=1,
)


@pytest.fixture
def store(tmp_path: Path) -> FragmentStore:
    return FragmentStore(tmp_path / "fragments")


def test_round_trip(store: FragmentStore, tmp_path: Path) -> None:
    assert store.get(IDENTITY) is None
    store.put(IDENTITY, FRAGMENT)
    store.put(IDENTITY, FRAGMENT)
    assert store.get(IDENTITY) == FRAGMENT
    assert [path.name for path in (tmp_path / "fragments").iterdir()] == [f"{IDENTITY}.json"]


def test_files_of_killed_processes_are_removed_after_a_day(store: FragmentStore, tmp_path: Path) -> None:
    folder = tmp_path / "fragments"
    folder.mkdir()
    old, young = (folder / f".{IDENTITY}.json.{pid}.tmp" for pid in (1, 2))
    old.touch()
    young.touch()
    past = time.time() - 2 * STALE_S
    os.utime(old, (past, past))
    store.put(IDENTITY, FRAGMENT)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "huge"])
def test_damage_counts_as_missing(store: FragmentStore, tmp_path: Path, damage: str) -> None:
    store.put(IDENTITY, FRAGMENT)
    path = tmp_path / "fragments" / f"{IDENTITY}.json"
    data = path.read_bytes()
    path.write_bytes(
        {
            "flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
            "cut": data[:-20],
            "empty": b"",
            "huge": data + b" " * MAX_FRAGMENT_BYTES,
        }[damage]
    )
    assert store.get(IDENTITY) is None
