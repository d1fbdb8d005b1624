"""Options spelled alike: networks by `--model` or `--arch`, from a pipe too; what is measured into files."""

import csv
import io
import json

import pytest

from tests.support.bench import answer, bench


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for folder in ("runs", "luts", "cache"):
        monkeypatch.setenv(f"BLOCKTIME_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.chdir(tmp_path)


MEASURE = ("measure", "--device", "simulated:quiet", "--budget", "1s")


def models(text):
    return [row["model"] for row in json.loads(text)["models"]]


def test_the_first_network_is_the_reference_however_it_is_given():
    arguments = ("--model", "mobilevit-xxs", "--arch", "autovit-xxs-paper", "--model", "mobilevit-xs")
    document = json.loads(answer(*MEASURE, *arguments, "--json"))
    assert [row["model"] for row in document["models"]] == list(arguments[1::2])
    assert document["models"][0]["ratio"] == 1


def test_an_architecture_is_piped_in(monkeypatch):
    sampled = answer("arch", "sample", "autovit-nano", "--seed", "5")
    monkeypatch.setattr("sys.stdin", io.StringIO(sampled))
    assert models(answer(*MEASURE, "--arch", "-", "--json")) == ["stdin"]
    monkeypatch.setattr("sys.stdin", io.StringIO(sampled))
    shown = json.loads(answer("arch", "show", "-", "--json"))
    assert shown["arch"] == json.loads(sampled)


def test_an_architecture_comes_from_a_pipe_without_a_suffix(tmp_path):
    pipe = tmp_path / "fd"
    pipe.write_text(answer("arch", "sample", "autovit-nano"))
    assert models(answer(*MEASURE, "--model", pipe, "--json")) == [str(pipe)]


def test_figures_are_written_as_they_are_printed(tmp_path):
    reported = answer(
        *MEASURE,
        "--arch",
        "autovit-xxs-paper",
        "-o",
        "a.json",
        "--output",
        "a.csv",
        "--out",
        "b/c.json",
        "--json",
    )
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(reported)
    assert (tmp_path / "b/c.json").read_text() == (tmp_path / "a.json").read_text()
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    (expected,) = json.loads(reported)["models"]
    assert (row["model"], float(row["ms"]), row["first_ms"]) == ("autovit-xxs-paper", expected["ms"], "")


def test_the_old_spelling_of_a_picture_is_the_output():
    done = bench("breakdown", "--device", "host", "--arch", "mobilevit-s", "--picture", "bars.gif")
    assert done.returncode == 2
    assert "--output bars.gif: expected a name that ends in .svg or .png or .pdf or .json" in done.stderr


def test_networks_are_shown_by_every_name_that_is_listed():
    for network in json.loads(answer("arch", "list", "--json")):
        shown = json.loads(answer("arch", "show", network["arch"], "--json"))
        assert (shown["params"], shown["resolution"]) == (network["params"], network["resolution"])
    typo = bench("arch", "show", "ceit-x")
    assert (typo.returncode, "unknown network 'ceit-x'; did you mean ceit-t" in typo.stderr) == (2, True)


def test_a_network_of_timm_is_shown_by_its_sums():
    """Parameters, and MACs at 224 px, as the model card of ResNet-18 has them (11.69 M, 1.8 G)."""
    shown = json.loads(answer("arch", "show", "timm:resnet18", "--json"))
    assert (shown["timm"], shown["params"], shown["resolution"]) == ("resnet18", 11_689_512, 224)
    assert shown["conv_linear_macs"] == shown["all_macs"] == 1_814_073_344
    text = answer("arch", "show", "timm:resnet18@64")
    assert "timm:resnet18@64 (timm, 64 px)" in text
    assert "11.690 M parameters" in text
    assert bench("arch", "show", "timm:resnet1").returncode == 2


def test_an_architecture_is_drawn_at_a_resolution():
    sides = {
        json.loads(answer("arch", "sample", "autovit-xxs", "--seed", seed, "--resolution", 224))["resolution"]
        for seed in range(5)
    }
    assert sides == {224}
    foreign = bench("arch", "sample", "autovit-xxs", "--resolution", 225)
    assert (foreign.returncode, "has no resolution 225" in foreign.stderr) == (2, True)


@pytest.mark.parametrize(
    ("content", "code", "reported"),
    [
        ("{", 6, "bad.json: architecture is not JSON"),
        ('{"space": "autovit-nno", "stages": {}}', 2, "bad.json: unknown space 'autovit-nno'; did you mean"),
        ('{"space": "autovit-nano", "stages": {}}', 2, "bad.json: autovit-nano: 0 stages"),
    ],
)
def test_a_bad_file_of_an_architecture_is_named(tmp_path, content, code, reported):
    (tmp_path / "bad.json").write_text(content)
    for command in (("arch", "show", "bad.json"), (*MEASURE, "--arch", "bad.json")):
        done = bench(*command)
        assert (done.returncode, reported in done.stderr) == (code, True), done.stderr
