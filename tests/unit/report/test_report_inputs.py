"""The folder of a run: what is missing is named, what is damaged is refused in one line."""

import hashlib
import json

import pytest

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.provenance import CodeVersion
from luts.format.store import LutStore
from orchestrator.cli.main import exit_code
from orchestrator.measure.validate import Validation
from orchestrator.report.inputs import read_run
from orchestrator.report.page import render
from orchestrator.winner.winner import MeasuredBest
from search.algorithms.record import LutPin, Provenance
from tests.support.errors import raises
from tests.support.report_world import (
    LARGE,
    SMALL,
    compared,
    make_measured,
    make_search,
    make_validation,
    write_run,
)


def refusal(folder, store) -> BlocktimeError:
    with pytest.raises(BlocktimeError) as caught:
        read_run(folder / "run", store)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_whole_run_is_read(tmp_path) -> None:
    inputs = read_run(tmp_path / "run", write_run(tmp_path))
    assert inputs.absent == ()
    assert inputs.lut.name == "phone/autovit-nano/executorch-xnnpack-fp32-t2/v1"
    assert inputs.winner == LARGE
    assert inputs.winner_measured.measured_ms == 4.2
    assert inputs.supernet.recipe.name == "tiny-recipe"
    assert not inputs.simulated


def test_missing_parts_are_named(tmp_path) -> None:
    store = write_run(tmp_path)
    for name in ("lut.txt", "validation.json", "search/measured.json", "supernet/checkpoint.json"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / "search" / "winner.json").unlink()
    inputs = read_run(tmp_path / "run", store)
    assert (inputs.lut, inputs.validation, inputs.measured, inputs.supernet) == (None, None, None, None)
    assert [words.rpartition("(")[2] for words in inputs.absent] == [
        "lut.txt)",
        "validation.json)",
        "supernet/)",
        "search/measured.json)",
    ]
    assert inputs.winner == LARGE, "the search itself names its winner"


LUT_NAME = "phone/autovit-nano/executorch-xnnpack-fp32-t2/v1"


def test_search_folder_is_reported_with_its_lut(tmp_path) -> None:
    """As `bench search -o` leaves it: no lut.txt, the LUT is named in the result."""
    store = write_run(tmp_path)
    found = (tmp_path / "run" / "search").rename(tmp_path / "found")
    digest = hashlib.sha256((tmp_path / "luts" / LUT_NAME / "lut.json").read_bytes()).hexdigest()
    for sha256, name in ((digest, LUT_NAME), ("00" * 32, None)):
        make_search(digest).model_copy(update={"provenance": provenance(sha256)}).save(found / "result.json")
        inputs = read_run(found, store)
        assert (inputs.lut.name if inputs.lut else None) == name
        assert any("lut.txt" in words for words in inputs.absent) == (name is None)
        assert inputs.winner_measured.measured_ms == 4.2
        assert "autovit-nano" in render(inputs)


def provenance(lut_sha256: str) -> Provenance:
    return Provenance(
        luts=(LutPin(name=LUT_NAME, sha256=lut_sha256),),
        checkpoint="ef" * 32,
        data="npz:images.npz",
        data_digest="cd" * 32,
        split="search",
        split_seed=0,
        split_fraction=0.1,
        code=CodeVersion(package="0.1.0", commit="0" * 40, sources="ab" * 32),
    )


def test_lut_path_relative_to_the_run(tmp_path) -> None:
    store = write_run(tmp_path)
    (tmp_path / "run" / "lut.txt").write_text("../luts/phone/autovit-nano/executorch-xnnpack-fp32-t2/v1")
    assert read_run(tmp_path / "run", store).lut is not None


def test_no_folder_and_an_empty_one_are_usage_errors(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    assert refusal(tmp_path, None).code == "nothing_to_report"
    with raises("unknown_folder"):
        read_run(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    "name",
    [
        "search/result.json",
        "search/winner.json",
        "search/measured.json",
        "validation.json",
        "supernet/checkpoint.json",
    ],
)
def test_a_truncated_file_is_refused_by_name(tmp_path, name) -> None:
    store = write_run(tmp_path)
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-20])
    error = refusal(tmp_path, store)
    assert isinstance(error, InvalidArtifactError)
    assert exit_code(error) == 6


@pytest.mark.parametrize("text", ["", "\x00", "a" * 5000, "line\nline"])
def test_a_lut_txt_without_a_name_is_refused(tmp_path, text) -> None:
    store = write_run(tmp_path)
    (tmp_path / "run" / "lut.txt").write_text(text)
    assert refusal(tmp_path, store).code == "invalid_lut_name"


def test_a_lut_that_is_gone_is_named(tmp_path) -> None:
    store = write_run(tmp_path)
    (tmp_path / "run" / "lut.txt").write_text("phone/other-space/variant/v1")
    assert refusal(tmp_path, store).code == "unknown_lut"


@pytest.mark.parametrize(
    "change",
    [
        {"measured_ms": 0.0},
        {"measured_low": 4.3},
        {"predicted_high": 3.9},
        {"measured_high": float("inf")},
        {"accuracy": 1.5},
        {"surprise": 1},
    ],
)
def test_impossible_measurements_are_refused(tmp_path, change) -> None:
    store = write_run(tmp_path)
    (tmp_path / "run" / "search" / "measured.json").write_text(json.dumps(make_measured(LARGE, **change)))
    assert isinstance(refusal(tmp_path, store), InvalidArtifactError)


def test_one_simulated_part_makes_the_report_simulated(tmp_path) -> None:
    store = write_run(tmp_path)
    path = tmp_path / "run" / "validation.json"
    path.write_text(json.dumps(make_validation() | {"measured": "simulated"}))
    assert read_run(tmp_path / "run", store).simulated


def test_a_winner_that_was_not_measured_has_no_measurement(tmp_path) -> None:
    store = write_run(tmp_path)
    (tmp_path / "run" / "search" / "measured.json").write_text(json.dumps(make_measured(SMALL)))
    inputs = read_run(tmp_path / "run", store)
    assert inputs.winner_measured is None
    assert inputs.measured.models[0].arch == SMALL.to_json()


def test_parts_of_one_run_do_not_contradict_each_other(tmp_path) -> None:
    assert read_run(tmp_path / "run", write_run(tmp_path)).contradictions == ()


def test_parts_of_different_luts_are_told(tmp_path) -> None:
    store = write_run(tmp_path)
    run = tmp_path / "run"
    make_search("0" * 64).save(run / "search" / "result.json")
    (run / "validation.json").write_text(json.dumps(make_validation() | {"lut": "another"}))
    (run / "search" / "measured.json").write_text(
        json.dumps(make_measured(LARGE) | {"variant": "coreml-fp16-all"})
    )
    first, second, third = read_run(run, store).contradictions
    assert "another LUT" in first
    assert "another" in second
    assert "coreml-fp16-all" in third


def test_what_the_commands_write_can_be_read(tmp_path) -> None:
    rows = compared(LARGE, 4.2)
    MeasuredBest(**make_measured(LARGE)).save(tmp_path / "search" / "measured.json")
    Validation(**make_validation() | {"comparisons": [rows]}).save(tmp_path / "validation.json")
    inputs = read_run(tmp_path, LutStore([]))
    assert inputs.measured.models[0].model_dump() == rows | {"accuracy": 0.875, "percentiles": None}
    assert inputs.validation.comparisons[0].model_dump() == rows | {"percentiles": None}
