"""`bench search` with real workers: the same result whatever their number, and after a kill."""

import json
import shutil
import signal

import pytest

from search.algorithms import SearchResult
from tests.support.bench import answer, stopped
from tests.support.winner_world import home_with_lut

OPTIONS = [
    *("--latency", "95%", "--confidence", "0.8"),
    *("--population", "6", "--generations", "1", "--additive", "0%"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory, export_cache):
    with home_with_lut(tmp_path_factory.mktemp("home"), export_cache) as home:
        yield home


@pytest.fixture(scope="module")
def supernet(home):
    options = "train --space autovit-nano --data digits --recipe demo --epochs 1"
    answer(*options.split(), "-o", home / "supernet")
    return home / "supernet"


def command(supernet, output, *further):
    return ["search", "--lut", "host", "--supernet", supernet, "-o", output, *OPTIONS, *further]


@pytest.fixture(scope="module")
def undisturbed(home, supernet):
    """Return the folder of an undisturbed search with one worker."""
    own = shutil.copytree(supernet, home / "own")
    answer(*command(own, home / "undisturbed", "--workers", 1))
    return home / "undisturbed"


def test_results_are_written_with_their_provenance(undisturbed, supernet):
    result = SearchResult.load(undisturbed / "result.json")
    pins = result.provenance
    info = json.loads((supernet / "checkpoint.json").read_text())
    assert pins.checkpoint == info["weights_sha256"]
    assert (pins.data, pins.data_digest, pins.split) == ("digits", info["data_digest"], "search")
    assert pins.luts[0].sha256 == result.price
    assert len(pins.code.sources) == 64
    assert json.loads((undisturbed / "winner.json").read_text()) == json.loads(result.winner.arch)
    for name in ("winner.pte", "winner.safetensors"):
        assert (undisturbed / name).stat().st_size > 0
    assert (undisturbed / "winner.mlpackage" / "Manifest.json").exists()
    best = json.loads(answer("arch", "show", undisturbed / "front" / "001.json", "--json"))
    assert best["arch"] == json.loads(result.winner.arch)
    card = (undisturbed / "winner.md").read_text()
    assert result.winner.arch in card
    assert pins.checkpoint in card


@pytest.mark.slow
def test_a_killed_search_with_four_workers_resumes(home, supernet, undisturbed):
    own = shutil.copytree(supernet, home / "killed-supernet")
    accuracies = own / "accuracies.jsonl"
    arguments = command(own, home / "killed", "--workers", 4)
    killed = stopped("SIGKILL", "accuracies", 8, *arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (home / "killed" / "result.json").exists()
    before = accuracies.read_bytes()
    assert before.count(b"\n") == 8
    answer(*arguments)
    found, expected = (SearchResult.load(path / "result.json") for path in (home / "killed", undisturbed))
    assert found.model_dump(exclude={"provenance": {"code"}}) == expected.model_dump(
        exclude={"provenance": {"code"}}
    )
    for name in ("winner.json", "winner.safetensors", "winner.pte"):
        assert (home / "killed" / name).read_bytes() == (undisturbed / name).read_bytes(), name
    after = accuracies.read_bytes()
    assert after.startswith(before)
    archs = [json.loads(line)["arch"] for line in after.splitlines()]
    assert len(archs) == len(set(archs))
    assert set(archs) == {row.arch for row in found.evaluated}


@pytest.mark.slow
def test_ctrl_c_is_exit_code_130_and_accuracies_are_cached(home, supernet):
    own = shutil.copytree(supernet, home / "interrupted-supernet")
    interrupted = stopped("SIGINT", "accuracies", 2, *command(own, home / "interrupted", "--workers", 2))
    assert interrupted.returncode == 130, interrupted.stderr
    assert "run the same command to" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    kept = (own / "accuracies.jsonl").read_bytes()
    assert kept.count(b"\n") >= 2
    assert kept.endswith(b"\n")
