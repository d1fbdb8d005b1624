"""A file of accuracies that several evaluators and processes share."""

import json
import random

import pytest

from luts.format.errors import BlocktimeError, InvalidArtifactError
from search.algorithms import CachedEvaluator
from search.spaces import get_space

SPACE = get_space("autovit-nano")


class Counting:
    """Gives out accuracies in reverse order and counts."""

    fingerprint = "a" * 64

    def __init__(self):
        self.asked = []

    def stream(self, archs):
        for arch in reversed(archs):
            self.asked.append(arch)
            yield arch, len(arch.to_json()) % 97 / 97


@pytest.fixture
def archs():
    rng = random.Random(1)
    return list({SPACE.sample(rng): None for _ in range(6)})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "accuracies.jsonl"


def test_answers_come_in_the_order_asked_and_each_is_evaluated_once(archs, path):
    judge, heard = Counting(), []
    cached = CachedEvaluator(judge, path, lambda arch, accuracy: heard.append((arch, accuracy)))
    asked = [archs[0], archs[1], archs[0]]
    first = cached.accuracies(asked)
    assert first == [len(arch.to_json()) % 97 / 97 for arch in asked]
    streamed = sorted(archs[:2], key=lambda arch: arch.to_json())[::-1]
    assert judge.asked == streamed, "given sorted, and the judge begins at the end"
    assert cached.accuracies(list(reversed(asked))) == first[::-1]
    assert len(judge.asked) == 2
    of = dict(zip(asked, first, strict=True))
    assert heard == [(arch, of[arch]) for arch in (*streamed, *archs[:2])]
    assert cached.accuracies([]) == []


def test_what_one_process_writes_the_other_knows(archs, path):
    one, other = Counting(), Counting()
    first, second = CachedEvaluator(one, path), CachedEvaluator(other, path)
    first.accuracies(archs[:3])
    second.accuracies(archs[2:])
    first.accuracies(archs)
    assert len(one.asked) == 3
    assert set(other.asked) == set(archs[3:])
    assert len(path.read_text().splitlines()) == len(archs)


def test_evaluated_by_two_at_once_the_first_line_counts(archs, path):
    class Late(Counting):
        def stream(self, wanted):
            CachedEvaluator(Counting(), path).accuracies(wanted)
            for arch in wanted:
                yield arch, 0.125

    early = [len(arch.to_json()) % 97 / 97 for arch in archs]
    assert CachedEvaluator(Late(), path).accuracies(archs) == early
    assert len(path.read_text().splitlines()) == len(archs)


def test_a_line_cut_by_a_kill_is_dropped_whoever_comes_next(archs, path):
    cached = CachedEvaluator(Counting(), path)
    cached.accuracies(archs[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"evaluator":"aaaa')
    cached.accuracies(archs[1:2])
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["evaluator"] for line in path.read_text().splitlines()] == ["a" * 64] * 2


def test_a_damaged_or_shrunk_file_is_refused(archs, path):
    cached = CachedEvaluator(Counting(), path)
    cached.accuracies(archs)
    text = path.read_text()
    path.write_text(text.replace('"accuracy":0.', '"accuracy":7.', 1))
    with pytest.raises(InvalidArtifactError, match="line 1 is not an accuracy"):
        CachedEvaluator(Counting(), path)
    path.write_text(text[:10])
    with pytest.raises(InvalidArtifactError, match="cut short"):
        cached.accuracies(archs)


def test_a_folder_that_cannot_be_written_is_named(archs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BlocktimeError, match="cannot keep accuracies"):
        CachedEvaluator(Counting(), tmp_path / "file" / "a.jsonl").accuracies(archs)
