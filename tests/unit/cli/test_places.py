"""Places that can't be written are one line before anything is measured or computed."""

import os
from pathlib import Path

import pytest

from luts.format.errors import StorageError
from luts.format.files import check_folder
from tests.support.bench import bench

LUT = "linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1"
MEASURE = ("measure", "--device", "simulated", "--arch", "autovit-xxs-paper", "--budget", "1s")
PROFILE = ("profile", "--device", "simulated", "--space", "autovit-nano", "--budget", "1s")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for folder in ("runs", "luts", "cache"):
        monkeypatch.setenv(f"BLOCKTIME_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.json").write_text("{}")


def refused(*arguments):
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", [MEASURE, PROFILE])
def test_a_file_in_the_place_of_the_runs(command, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", "n.json/runs")
    assert refused(*command) == (
        f"bench: n.json/runs can't be a folder: {Path('n.json').absolute()} is a file; "
        "set BLOCKTIME_RUNS to another folder"
    )


def test_a_file_in_the_place_of_a_run_or_of_the_luts(monkeypatch):
    assert refused(*PROFILE, "--run", "n.json").endswith("is a file; give another folder with --run")
    monkeypatch.setenv("BLOCKTIME_LUTS", "n.json")
    assert refused(*PROFILE).endswith("n.json is a file; give another folder with --luts or BLOCKTIME_LUTS")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (".", "bench: . is a folder; give a file's name"),
        ("/dev/null", "bench: /dev/null is not a file; give a file's name"),
        ("n.json/report.html", "n.json is a file; choose another place"),
    ],
)
def test_a_report_goes_into_a_file(output, expected):
    assert expected in refused("report", "--lut", LUT, "--output", output)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("n.json/a.json", "n.json is a file; choose another place"),
        ("a.txt", "--output a.txt: expected a name that ends in .json or .csv"),
        ("-", "--output -: only --json writes to the standard output"),
    ],
)
def test_figures_go_where_they_can_be_written(output, expected):
    assert expected in refused(*MEASURE, "-o", output)


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--space", "autovit-nano", "--data", "digits", "-o", "n.json"),
        ("search", "--lut", LUT, "--latency", "10ms", "--supernet", "absent", "-o", "n.json"),
        ("export", "mobilevit-s", "-o", "n.json/a.pte"),
        ("export", "blocks", "autovit-nano", "-o", "n.json"),
    ],
)
def test_folders_are_looked_at_before_the_work(command):
    assert "is a file; choose another place" in refused(*command)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StorageError, match=f"no permission in {tmp_path}/closed; elsewhere"):
        check_folder(tmp_path / "closed/a/b", "elsewhere")
