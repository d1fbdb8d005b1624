"""`bench` on a simulated device, as its user calls it: killed, given again, shown."""

import json
import signal
from pathlib import Path

import psutil
import pytest

from luts.format.errors import UsageError
from orchestrator.journal.log import read_log
from orchestrator.simulate.device import SCENARIOS
from tests.support.bench import answer, stopped
from tests.support.bench import invoke as bench
from tests.support.errors import raises
from tests.support.sample_places import sample_places

PLAN = ("--space", "autovit-nano", "--removals", "none", "--design", "24", "--heldout", "4", "--budget", "1s")
LUT = "mine-at-work/autovit-nano/simulated-t1/v1"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where runs, LUTs and caches of all calls lie; the scenario `mine.json` too."""
    folder = tmp_path_factory.mktemp("simulated")
    scenario = SCENARIOS["quiet"].model_copy(update={"name": "mine", "noise_seed": 1})
    (folder / "mine.json").write_text(scenario.model_dump_json())
    names = {
        "BLOCKTIME_RUNS": "runs",
        "BLOCKTIME_LUTS": "luts",
        "BLOCKTIME_CACHE": "cache",
        "XDG_CACHE_HOME": "agents",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in names.items():
            patch.setenv(name, str(folder / value))
        yield folder


@pytest.fixture(scope="module")
def profiled(home):
    """What `bench profile` said; killed in its middle and given again."""
    device = ("--device", "simulated:mine.json", "--name", "mine-at-work")
    command = ("profile", *device, *PLAN, "--run", "run")
    journal = home / "run" / "journal.jsonl"
    first = stopped("SIGKILL", "chunks", 4, *command)
    assert first.returncode == -signal.SIGKILL, first.stderr
    before = journal.read_bytes()
    assert b'"kind":"end"' in before, "some of it was done"
    second = bench(*command)
    assert second.exit_code == 0, second.output
    chunks = [data.count(b'"kind":"chunk"') for data in (before, journal.read_bytes())]
    assert chunks[0] < chunks[1], "it was killed in the middle"
    return second.stderr


def test_a_profile_that_was_killed_goes_on_without_measuring_anything_twice(home, profiled) -> None:
    records = read_log(home / "run" / "journal.jsonl")
    assert [record.kind for record in records].count("header") == 1
    places = sample_places(records)
    assert len(places) == len(set(places))


def test_sigterm_ends_it_as_ctrl_c_does_and_it_goes_on(home) -> None:
    command = ("profile", "--device", "simulated:mine.json", *PLAN, "--run", "ended", "--luts", "ended-luts")
    ended = stopped("SIGTERM", "chunks", 4, *command)
    assert ended.returncode == 143
    assert ended.stderr.splitlines()[-1] == (
        "bench: terminated; results so far are saved, run the same command to resume"
    )
    assert ended.stderr.count("bench: ") == 1
    assert not [who for who in psutil.process_iter(["cmdline"]) if str(home) in str(who.info["cmdline"])]
    before = sample_places(read_log(home / "ended" / "journal.jsonl"))
    assert before
    assert bench(*command).exit_code == 0
    assert set(before) < set(sample_places(read_log(home / "ended" / "journal.jsonl")))


def test_ground_truth_is_stored_next_to_the_run(home, profiled) -> None:
    assert "SIMULATED, truth known (run/truth.json): " in profiled
    document = json.loads((home / "run" / "truth.json").read_text())
    assert document["simulated"] is True
    assert document["scenario"]["name"] == "mine"
    assert len(document["models"]) == 29
    assert document["comparison"]["covered"] >= 0.8
    assert all(model["latency_ms"] > 0 for model in document["models"].values())


def test_everything_made_of_it_says_simulated(home, profiled) -> None:
    assert "numbers      simulated" in bench("lut", "show", LUT).stdout
    kinds = {row["lut"]: row["kind"] for row in json.loads(bench("lut", "list", "--json").stdout)}
    assert kinds[LUT] == "simulated"
    again = Path(bench("lut", "rebuild", LUT, "--name", "again").stdout.strip())
    assert again == home / "luts" / LUT.replace("mine-at-work", "again")
    assert "numbers      simulated" in bench("lut", "show", str(again)).stdout
    assert bench("report", "--lut", LUT, "--output", "report.html").exit_code == 0
    assert (home / "report.html").read_text().lower().count("simulated") >= 4
    arguments = ("--lut", LUT, "--device", "simulated:mine.json", "-n", "3", "--budget", "1s", "--json")
    validated = json.loads(bench("validate", *arguments).stdout)
    assert validated["mape"] < 0.05
    kept = [json.loads(path.read_text()) for path in (home / "runs").glob("*/validation.json")]
    assert [validation["measured"] for validation in kept] == ["simulated"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--device", "simulated:loud"), "unknown_scenario"),
        (("--device", "simulated", "--backend", "xnnpack"), "bad_variant"),
        (("--device", "simulated", "--agent", "kotlin"), "option_does_not_apply"),
        (("--device", "simulated", "--runtime", "coreml"), "unsupported_runtime"),
        (("--device", "simulated", "--threads", "5"), "too_many_threads"),
        (("--device", "simulated", "--name", "../Mine"), "invalid_value"),
    ],
)
def test_what_a_simulated_device_does_not_have(home, options, code) -> None:
    with raises(code, UsageError):
        bench("profile", *options, *PLAN)


def test_a_simulated_device_takes_blocks_alone(home) -> None:
    with raises("not_blocks"):
        bench("measure", "--device", "simulated", "--model", "timm:mobilenetv3_small_100")


def test_a_sustained_run_is_reported_drawn_and_read_again(home, tmp_path) -> None:
    table, picture = tmp_path / "s.json", tmp_path / "s.svg"
    done = answer(
        *("measure", "sustained", "autovit-xxs-paper", "--device", "simulated:phone", "--duration", "90s"),
        *("-o", table, "-o", picture),
    )
    printed = json.loads(table.read_text())
    assert "SIMULATED" in done
    assert printed["numbers"] == "simulated"
    assert "slowed down after" in printed["verdict"], "it turns hot within a minute"
    assert "thermal state serious" in printed["verdict"]
    assert " ".join(printed["verdict"].split()) in " ".join(done.split())
    assert sum(point["calls"] for point in printed["points"]) == printed["calls"]
    assert "SIMULATED" in picture.read_text()
    assert answer("runs", "sustained-simulated-phone").splitlines()[-3:] == done.splitlines()[-3:]
    with raises("not_one_network"):
        bench("measure", "sustained", "--device", "simulated", "--duration", "1m")
