"""The folder of a run: what is read, what is refused, and the numbers behind its figures."""

import hashlib
import html
import json

import pytest

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.store import LutStore
from orchestrator.cli.main import exit_code
from orchestrator.measure.validate import Validation
from orchestrator.report.inputs import read_run
from orchestrator.report.lut_sections import predicted_and_measured, quiet
from orchestrator.report.page import render
from orchestrator.report.search_sections import history, latency_parts, new_accuracies
from orchestrator.winner.winner import MeasuredBest
from search.algorithms.finals import Final, Finals
from search.algorithms.record import SearchResult
from tests.support.errors import raises
from tests.support.report_world import (
    AA_RATIO,
    BASE_MS,
    BLOCK_MS,
    LARGE,
    LUT_NAME,
    MS_PER_MIB,
    SMALL,
    compared,
    make_lut,
    make_measured,
    make_provenance,
    make_search,
    make_validation,
)


def test_complete_run(inputs) -> None:
    assert inputs.absent == ()
    assert inputs.lut.name == LUT_NAME
    assert inputs.winner == LARGE
    assert inputs.winner_measured.measured_ms == 4.2
    assert inputs.supernet.recipe.name == "tiny-recipe"
    assert not inputs.simulated
    assert inputs.contradictions == ()


def test_missing_parts_are_named(run, store) -> None:
    for name in ("lut.txt", "validation.json", "search/measured.json", "supernet/checkpoint.json"):
        (run / name).unlink()
    (run / "search" / "winner.json").unlink()
    inputs = read_run(run, store)
    assert (inputs.lut, inputs.validation, inputs.measured, inputs.supernet) == (None, None, None, None)
    assert [words.rpartition("(")[2] for words in inputs.absent] == [
        "lut.txt)",
        "validation.json)",
        "supernet/)",
        "search/measured.json)",
    ]
    assert inputs.winner == LARGE, "the search itself names its winner"


def test_search_folder_is_reported_with_its_lut(tmp_path, run, store) -> None:
    """As `bench search -o` leaves it: no lut.txt, the LUT is named in the result."""
    found = (run / "search").rename(tmp_path / "found")
    digest = hashlib.sha256((tmp_path / "luts" / LUT_NAME / "lut.json").read_bytes()).hexdigest()
    for sha256, name in ((digest, LUT_NAME), ("00" * 32, None)):
        result = make_search(digest).model_copy(update={"provenance": make_provenance(sha256)})
        result.save(found / "result.json")
        inputs = read_run(found, store)
        assert (inputs.lut.name if inputs.lut else None) == name
        assert any("lut.txt" in words for words in inputs.absent) == (name is None)
        assert inputs.winner_measured.measured_ms == 4.2
        assert "autovit-nano" in render(inputs)


def test_missing_and_empty_folder(tmp_path) -> None:
    with raises("nothing_to_report"):
        read_run(tmp_path, LutStore([]))
    with raises("unknown_folder"):
        read_run(tmp_path / "nowhere", LutStore([]))


MEASURED = "search/measured.json"
INVALID_LUT, UNKNOWN_LUT = "invalid_lut_name", "unknown_lut"
DAMAGES = [
    *((name, None, "") for name in ("search/result.json", "search/winner.json", "validation.json")),
    *((name, None, "") for name in (MEASURED, "supernet/checkpoint.json")),
    *(("lut.txt", text, INVALID_LUT) for text in ("", "\x00", "a" * 5000, "line\nline")),
    ("lut.txt", "phone/other-space/variant/v1", UNKNOWN_LUT),
    *(
        (MEASURED, json.dumps(make_measured(LARGE, **change)), "")
        for change in (
            {"measured_ms": 0.0},
            {"measured_low": 4.3},
            {"predicted_high": 3.9},
            {"measured_high": float("inf")},
            {"accuracy": 1.5},
            {"surprise": 1},
        )
    ),
]
"""A file, its new text (None: what it has without the last 20 bytes), and the error's code where it is no matter of
the file's own format."""


@pytest.mark.parametrize(("name", "text", "code"), DAMAGES)
def test_damaged_file_is_refused_in_one_line(run, store, name, text, code) -> None:
    path = run / name
    path.write_text(path.read_text()[:-20] if text is None else text)
    with pytest.raises(BlocktimeError) as caught:
        read_run(run, store)
    error = caught.value
    assert "\n" not in str(error)
    assert error.code == code if code else isinstance(error, InvalidArtifactError) and exit_code(error) == 6


def test_simulated_part(run, store) -> None:
    validation = make_validation() | {"measured": "simulated"}
    (run / "validation.json").write_text(json.dumps(validation))
    assert read_run(run, store).simulated


def test_winner_without_a_measurement(run, store) -> None:
    (run / MEASURED).write_text(json.dumps(make_measured(SMALL)))
    inputs = read_run(run, store)
    assert inputs.winner_measured is None
    assert inputs.measured.models[0].arch == SMALL.to_json()


def test_parts_of_different_luts(run, store) -> None:
    make_search("0" * 64).save(run / "search" / "result.json")
    (run / "validation.json").write_text(json.dumps(make_validation() | {"lut": "another"}))
    (run / MEASURED).write_text(json.dumps(make_measured(LARGE) | {"variant": "coreml-fp16-all"}))
    inputs = read_run(run, store)
    first, second, third = inputs.contradictions
    assert "another LUT" in first
    assert "another" in second
    assert "coreml-fp16-all" in third
    assert first in render(inputs)


def test_files_that_commands_write(tmp_path) -> None:
    rows = compared(LARGE, 4.2)
    MeasuredBest(**make_measured(LARGE)).save(tmp_path / "search" / "measured.json")
    Validation(**make_validation() | {"comparisons": [rows]}).save(tmp_path / "validation.json")
    inputs = read_run(tmp_path, LutStore([]))
    assert inputs.measured.models[0].model_dump() == rows | {"accuracy": 0.875, "percentiles": None}
    assert inputs.validation.comparisons[0].model_dump() == rows | {"percentiles": None}


def test_latency_parts_follow_each_other_and_add_up() -> None:
    parts = latency_parts(make_lut(), LARGE)
    assert [part.key for part in parts] == ["", *LARGE.keys(), ""]
    assert [parts[0].kind, parts[-1].kind] == ["base", "data moved"]
    moved_ms = MS_PER_MIB * LARGE.boundary_bytes() / 2**20
    assert parts[-1].ms == pytest.approx(moved_ms)
    assert [part.start_ms for part in parts[:3]] == pytest.approx([0, BASE_MS, BASE_MS + BLOCK_MS])
    end_ms = parts[-1].start_ms + parts[-1].ms
    assert end_ms == pytest.approx(BASE_MS + BLOCK_MS * len(LARGE.keys()) + moved_ms)


def test_quartiles_of_a_generation() -> None:
    assert new_accuracies(make_search()) == [(0.53125, 0.5625, 0.59375), (0.875, 0.875, 0.875)]


def test_generations_list_new_networks_and_the_best(inputs) -> None:
    assert [row[:3] for row in history(inputs).rows] == [("0", "2", "62.50 %"), ("1", "1", "87.50 %")]


def test_differences_of_rejected_batches_are_listed_too(inputs) -> None:
    section = quiet(inputs)
    assert [(row[0], row[2], row[5]) for row in section.rows] == [
        (str(batch), f"{100 * (AA_RATIO - 1):+.3f} %", verdict)
        for batch, verdict in enumerate(("kept", "rejected", "kept"))
    ]


def test_networks_are_compared_by_their_origin(inputs) -> None:
    groups = predicted_and_measured(inputs)
    assert {origin: [row.error for row in rows] for origin, rows in groups.items()} == {
        "held out of the LUT": [pytest.approx(0.25)],
        "new random networks": [pytest.approx(0.0), pytest.approx(-0.2)],
        "found by the search": [pytest.approx(4.0 / 4.2 - 1)],
    }


def test_lut_path_relative_to_the_run(run, store) -> None:
    (run / "lut.txt").write_text(f"../luts/{LUT_NAME}")
    assert read_run(run, store).lut is not None


def test_finals_choose_the_winner(run, store) -> None:
    """The best of two is confirmed; the page states its accuracy, not the objective's value."""
    held = Finals(
        recipe="tiny, 2 epochs",
        fingerprint="f",
        finals=(
            Final(arch=LARGE.to_json(), rule="largest", top1=(0.7, 0.71)),
            Final(arch=SMALL.to_json(), rule="search", top1=(0.75, 0.73)),
        ),
    )
    (run / "search" / "finals.json").write_text(held.model_dump_json())
    (run / "search" / "winner.json").write_text(SMALL.to_json())
    inputs = read_run(run, store)
    assert (inputs.finals, inputs.chosen.arch) == (held, SMALL.to_json())
    page = render(inputs)
    assert held.verdict() in html.unescape(page)
    assert "75.0 %" in page
    (run / "search" / "finals.json").write_text("{}")
    with raises("invalid_file"):
        read_run(run, store)


def test_values_of_other_objectives_have_their_name(run, store) -> None:
    path = run / "search" / "result.json"
    search = SearchResult.load(path)
    likelihood = make_provenance(search.price).model_copy(update={"objective": "inherited-likelihood"})
    search.model_copy(update={"provenance": likelihood}).save(path)
    page = html.unescape(render(read_run(run, store)))
    assert "winner's objective" in page
    assert "Objective against latency" in page
