"""The folder of one search and its measurements."""

import pytest

from orchestrator.winner.winner import MeasuredArch, MeasuredBest, ResultFolder
from search.algorithms.record import LutPin, SearchInputs
from search.spaces import load_arch
from tests.support.errors import raises


def inputs_of(result, **changes):
    known = {name: getattr(result, name) for name in SearchInputs.model_fields}
    return SearchInputs(**known | changes)


def measured_of(result, winner, high=1.0):
    """Return measurements of all networks, each with this upper end."""
    models = tuple(
        MeasuredArch(
            arch=row.arch,
            accuracy=row.accuracy,
            predicted_ms=1,
            predicted_low=1,
            predicted_high=1,
            measured_ms=high,
            measured_low=high,
            measured_high=high,
        )
        for row in result.evaluated
    )
    return MeasuredBest(device="host", variant="x", winner=winner.arch, meets_budget=True, models=models)


@pytest.fixture
def pins(result):
    return result.provenance.luts


@pytest.fixture
def folder(result, tmp_path):
    folder = ResultFolder(tmp_path / "out")
    folder.save(result)
    return folder


def changed(value, **changes):
    return value.model_copy(update=changes)


def test_the_same_search_reuses_its_folder(folder, result, pins):
    before = (folder.path / "result.json").read_bytes()
    folder.check(inputs_of(result), pins)
    folder.save(result)
    assert (folder.path / "result.json").read_bytes() == before
    assert sorted(path.name for path in folder.path.iterdir()) == ["front", "result.json"]


def test_each_network_of_the_front_has_a_file(folder, result):
    half, best, middle = result.evaluated
    (folder.path / "front" / "004.json").write_text("of other code")
    worse = changed(middle, accuracy=0.4, latency_ms=1.5)
    files = folder.save(changed(result, evaluated=(half, best, worse)))
    assert {file.name: row for file, row in files.items()} == {"001.json": best, "002.json": half}
    assert sorted(folder.path.glob("front/*")) == sorted(files)
    assert [load_arch(str(file)).to_json() for file in files] == [best.arch, half.arch]
    by_latency = changed(result, settings=changed(result.settings, objectives=("latency",)))
    assert list(folder.save(by_latency).values()) == [half]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("constraints", {"latency_ms": 3.25000001}, "another constraint: latency_ms was 3.5, now 3.25;"),
        ("constraints", {"further_latency_ms": (4.0,)}, "constraint: further_latency_ms was (), now (4.0,)"),
        ("settings", {"seed": 8}, "another setting: seed was 7, now 8"),
        ("evaluator", "0" * 64, "another supernet, objective or images"),
        ("space_digest", "0" * 16, "another space: autovit-nano, changed"),
    ],
)
def test_another_search_is_refused(folder, result, pins, field, value, text):
    before = (folder.path / "result.json").read_bytes()
    other = changed(getattr(result, field), **value) if isinstance(value, dict) else value
    with raises("other_search") as refused:
        folder.check(inputs_of(result, **{field: other}), pins)
    assert text in str(refused.value)
    assert (folder.path / "result.json").read_bytes() == before


def test_another_lut_is_named(folder, result, pins):
    other = LutPin(name="phone/autovit-nano/x/v4", sha256="f" * 64)
    with raises("other_search") as refused:
        folder.check(inputs_of(result, price=other.sha256), [other])
    assert "phone/autovit-nano/x/v3, now phone/autovit-nano/x/v4" in str(refused.value)
    edited = changed(pins[0], sha256="f" * 64)
    with raises("other_search") as refused:
        folder.check(inputs_of(result, price=edited.sha256), [edited])
    assert "phone/autovit-nano/x/v3 has other files now" in str(refused.value)


def test_measurements_of_another_search_are_refused(folder, result, pins):
    measured = measured_of(result, winner=result.evaluated[0])
    folder.save_measured(measured)
    folder.check(inputs_of(result), pins)
    folder.save(result)
    assert folder.measured() == measured
    tighter = changed(result, constraints=changed(result.constraints, latency_ms=0.5))
    less = changed(result, evaluated=result.evaluated[1:])
    for other in (tighter, less):
        with raises("other_search"):
            folder.save(other)
    (folder.path / "result.json").unlink()
    with raises("other_search"):
        folder.check(inputs_of(result), pins)


def test_a_damaged_result_is_not_overwritten(result, pins, tmp_path):
    (tmp_path / "result.json").write_text("{")
    with raises("invalid_file"):
        ResultFolder(tmp_path).check(inputs_of(result), pins)
    assert (tmp_path / "result.json").read_text() == "{"
