"""Supernets that others have made, in folders that can't be written."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from orchestrator.tasks.supernets import Notes
from search.algorithms import CachedEvaluator
from search.spaces import get_space
from tests.support.search_openers import FINGERPRINT

SHA = "5" * 64
NOBODY = 65534
ARCHS = [arch for arch, _ in zip(get_space("autovit-nano"), range(3), strict=False)]


class Judge:
    fingerprint = FINGERPRINT

    def __init__(self):
        self.asked = []

    def stream(self, archs):
        for arch in archs:
            self.asked.append(arch)
            yield arch, 0.5


@pytest.fixture
def shared(monkeypatch):
    """A supernet's folder with an accuracy in it, read only; what runs now is not root's, whom nothing stops."""
    place = Path(tempfile.mkdtemp(prefix="blocktime-shared-"))
    monkeypatch.setenv("BLOCKTIME_CACHE", str(place / "cache"))
    folder = place / "supernet"
    CachedEvaluator(Judge(), folder / "accuracies.jsonl").accuracies(ARCHS[:1])
    (place / "cache").mkdir()
    (place / "cache").chmod(0o777)
    place.chmod(0o755)
    (folder / "accuracies.jsonl").chmod(0o444)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(place)


def test_accuracies_of_a_read_only_supernet_go_to_the_cache_and_those_it_has_are_known(shared):
    messages = []
    before = (shared / "accuracies.jsonl").read_bytes()
    for evaluated in (ARCHS[1:], []):
        notes = Notes.of(shared, SHA, ("accuracies.jsonl",), messages.append)
        judge = Judge()
        known = notes.shared_file("accuracies.jsonl")
        cached = CachedEvaluator(judge, notes.file("accuracies.jsonl"), shared=known)
        assert cached.accuracies(ARCHS) == [0.5] * 3
        assert judge.asked == evaluated
    assert (shared / "accuracies.jsonl").read_bytes() == before
    mine = shared.parent / "cache" / "supernets" / SHA / "accuracies.jsonl"
    lines = [json.loads(line)["arch"] for line in mine.read_text().splitlines()]
    assert lines == [arch.to_json() for arch in ARCHS[1:]]
    assert [str(note) for note in messages] == [
        f"note: {shared} is read-only; results about it are stored in {mine.parent}"
    ] * 2


def test_notes_of_a_supernet_of_ones_own_are_in_its_folder(tmp_path):
    messages = []
    notes = Notes.of(tmp_path, SHA, ("accuracies.jsonl",), messages.append)
    assert notes.file("accuracies.jsonl") == tmp_path / "accuracies.jsonl"
    assert notes.shared_file("accuracies.jsonl") is None
    (tmp_path / "accuracies.jsonl").touch()
    assert Notes.of(tmp_path, SHA, ("accuracies.jsonl",), messages.append) == notes
    assert not messages
