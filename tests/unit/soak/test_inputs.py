"""Mutated inputs: a seed of a sound reader is clean, and each thing that a reader may do wrong is told."""

import random
import signal
import sys
from pathlib import Path

import pytest

from luts.format import lut as lut_files
from luts.format.errors import InvalidArtifactError
from luts.format.schema import LutMeta
from tests.soak import inputs
from tests.soak.lut_readers import LutReader
from tests.soak.mutations import mutate_bytes, mutate_json, mutate_text, mutate_zip, zipped
from tests.soak.read_inputs import Report, hang, peak_bytes, problem_with, read_seeded
from tests.soak.readers import READERS


def read_in_process(folder: Path, count: int) -> list[str]:
    """Read some inputs of LUT files here; return the problems."""
    (folder / "reader").mkdir()
    reader = LutReader(folder / "reader", folder)
    read_seeded(reader, "LUT files", 0, range(count), Report(folder))
    number, problems = inputs.read_report(folder)
    assert number == count
    return [problem["why"] for problem in problems]


def test_readers_have_the_names_of_the_faults() -> None:
    assert tuple(READERS) == inputs.READER_NAMES


def test_a_seed_of_a_child_process_is_clean(tmp_path: Path) -> None:
    outcome = inputs.read_mutated("architectures", 200, 0, tmp_path)
    assert (outcome.tries, outcome.clean, outcome.detail) == (200, True, "")


def test_sound_reader_is_clean(tmp_path: Path) -> None:
    assert read_in_process(tmp_path, 30) == []


def test_changed_figures_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that does not compare digests."""
    monkeypatch.setattr(lut_files, "_sha256", lambda content: "ab" * 32)
    monkeypatch.setattr(LutMeta, "__eq__", lambda *_: False, raising=False)
    assert "a changed LUT is accepted" in read_in_process(tmp_path, 30)


def test_what_is_wrong_with_an_input() -> None:
    def refuse(message: str) -> str:
        raise InvalidArtifactError(message)

    def fail(data: bytes) -> str:
        return str(1 // len(data))

    start = peak_bytes()
    assert problem_with(lambda _: "", b"", start) == ("", "")
    assert problem_with(lambda _: refuse("no; restore it"), b"", start) == ("", "")
    assert problem_with(lambda _: refuse(""), b"", start) == ("wrong", "message ''")
    assert problem_with(lambda _: "another figure", b"", start) == ("wrong", "another figure")
    assert problem_with(fail, b"", start)[1].startswith("ZeroDivisionError: integer division")
    assert problem_with(lambda _: "", b"", start - (600 << 20))[1].endswith("MiB of memory")


def test_hanging_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(_: bytes) -> str:
        while True:
            pass

    before = signal.signal(signal.SIGALRM, hang)
    monkeypatch.setattr("tests.soak.read_inputs.LIMIT_S", 0.05)
    try:
        assert problem_with(endless, b"", peak_bytes())[0] == "hung"
    finally:
        signal.signal(signal.SIGALRM, before)


CRASHING = """
import os, sys
_, reader, seed, first, inputs, folder, kept = sys.argv[:7]
for number in range(int(first) + 1, int(inputs) + 1):
    open(f"{folder}/count", "wb").write(number.to_bytes(8, "little"))
    if number == 3:
        os.abort()
"""


def test_an_input_that_ends_the_process_is_told_and_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "child.py"
    program.write_text(CRASHING)
    monkeypatch.setattr(inputs, "CHILD", [sys.executable, str(program)])
    outcome = inputs.read_mutated("frames", 5, 0, tmp_path)
    assert (outcome.tries, outcome.wrong, outcome.hung) == (5, 1, 0)
    assert outcome.detail.startswith("input 3 ended the process (-6)")


def test_mutations_follow_from_the_generator_and_change_most_inputs() -> None:
    document = b'{"a": 1, "b": [1.5, "x", null], "c": {"d": true}}'
    for mutate, data in (
        (mutate_bytes, bytes(range(64))),
        (mutate_json, document),
        (mutate_text, b"a = 1\nb = [2]\nx,y\n1,2\n"),
        (mutate_zip, zipped([("a/b", b"12345678")])),
    ):
        several = [mutate(data, random.Random(seed)) for seed in range(100)]
        assert several == [mutate(data, random.Random(seed)) for seed in range(100)]
        assert len(set(several) - {data}) > 50
