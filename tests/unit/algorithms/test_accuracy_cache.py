"""The cache of accuracies that several evaluators and processes share."""

import json
import random

import pytest

from search.algorithms import CachedEvaluator
from search.spaces import get_space
from tests.support.errors import raises

SPACE = get_space("autovit-nano")


class Counting:
    """Yields accuracies in reverse order and records what it was asked for."""

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


def test_accuracies_are_in_order_and_evaluated_once(archs, path):
    evaluator, results = Counting(), []
    cached = CachedEvaluator(evaluator, path, lambda arch, accuracy: results.append((arch, accuracy)))
    requested = [archs[0], archs[1], archs[0]]
    first = cached.accuracies(requested)
    assert first == [len(arch.to_json()) % 97 / 97 for arch in requested]
    streamed = sorted(archs[:2], key=lambda arch: arch.to_json())[::-1]
    assert evaluator.asked == streamed, "passed sorted, and the evaluator reverses them"
    assert cached.accuracies(list(reversed(requested))) == first[::-1]
    assert len(evaluator.asked) == 2
    of = dict(zip(requested, first, strict=True))
    assert results == [(arch, of[arch]) for arch in (*streamed, *archs[:2])]
    assert cached.accuracies([]) == []


def test_processes_share_the_file(archs, path):
    one, other = Counting(), Counting()
    first, second = CachedEvaluator(one, path), CachedEvaluator(other, path)
    first.accuracies(archs[:3])
    second.accuracies(archs[2:])
    first.accuracies(archs)
    assert len(one.asked) == 3
    assert set(other.asked) == set(archs[3:])
    assert len(path.read_text().splitlines()) == len(archs)


def test_the_first_of_two_lines_counts(archs, path):
    class Late(Counting):
        def stream(self, archs):
            CachedEvaluator(Counting(), path).accuracies(archs)
            for arch in archs:
                yield arch, 0.125

    early = [len(arch.to_json()) % 97 / 97 for arch in archs]
    assert CachedEvaluator(Late(), path).accuracies(archs) == early
    assert len(path.read_text().splitlines()) == len(archs)


def test_an_incomplete_last_line_is_dropped(archs, path):
    cached = CachedEvaluator(Counting(), path)
    cached.accuracies(archs[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"evaluator":"aaaa')
    cached.accuracies(archs[1:2])
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["evaluator"] for line in path.read_text().splitlines()] == ["a" * 64] * 2


def test_accuracies_of_other_evaluators_are_ignored(archs, path):
    CachedEvaluator(Counting(), path).accuracies(archs[:1])
    other = Counting()
    other.fingerprint = "c" * 64
    CachedEvaluator(other, path).accuracies(archs[:1])
    assert other.asked == archs[:1]


def test_damaged_files_are_refused(archs, path, tmp_path):
    cached = CachedEvaluator(Counting(), path)
    cached.accuracies(archs)
    text = path.read_text()
    for damaged in (text.replace('"accuracy":0.', '"accuracy":7.', 1), f"nonsense\n{text}"):
        path.write_text(damaged)
        with raises("damaged_file"):
            CachedEvaluator(Counting(), path)
    path.write_text(text[:10])
    with raises("damaged_file"):
        cached.accuracies(archs)
    (tmp_path / "file").write_text("")
    with raises("not_writable"):
        CachedEvaluator(Counting(), tmp_path / "file" / "a.jsonl").accuracies(archs)
