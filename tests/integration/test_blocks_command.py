"""`bench blocks` on a simulated device, whose truth is known."""

import json
from unittest import mock

import pytest

from luts.format.errors import UsageError
from orchestrator.simulate.device import SCENARIOS, GroundTruth
from orchestrator.tasks.blocks import block_names, mixers
from orchestrator.tasks.models import exportable_files
from tests.support.bench import invoke


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("BLOCKTIME_RUNS", "BLOCKTIME_LUTS", "BLOCKTIME_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def bench(*arguments):
    return invoke("blocks", "--device", "simulated", "--budget", "1s", *arguments)


def test_ranks_what_a_copy_costs_and_leaves_out_what_does_not_fit(home) -> None:
    chosen = ("--blocks", "mha,window,pool", "--resolution", "14,16", "--width", "32")
    result = bench(*chosen, "--out", "blocks.json", "--out", "blocks.png")
    assert result.exit_code == 0, result.output
    assert "window excluded at 14 px: mix.window(c=32,heads=1,w=8)@14: windows of 8 px" in result.stderr
    assert "SIMULATED" in result.stdout
    assert (home / "blocks.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((home / "blocks.json").read_text())
    assert document["simulated"] is True
    assert len(document["left_out"]) == 1
    rows = document["blocks"]
    assert [(row["tokens"], row["rank"]) for row in rows] == [
        (196, 1),
        (196, 2),
        (256, 1),
        (256, 2),
        (256, 3),
    ]
    truth = GroundTruth(SCENARIOS["quiet"].costs)
    for row in rows:
        (mixer,) = mixers([row["block"]], 32, [row["resolution"]], 8)[0]
        true_ms = (truth.latency_ms(mixer.long) - truth.latency_ms(mixer.short)) / 2
        assert row["ms"] == pytest.approx(true_ms, rel=0.06)
        assert row["ms_low"] < row["ms"] < row["ms_high"]
        assert row["alone_ms"] == pytest.approx(truth.latency_ms(mixer.alone), rel=0.06)


def test_what_can_not_be_exported_is_named_and_the_others_go_on() -> None:
    whole, reported = exportable_files, "xnnpack cannot lower this model: no operator aten.roll"

    def refusing(variant, specs, *how):
        refused = {name: reported for name, spec in specs.items() if "mix.pool" in " ".join(spec.blocks)}
        files, artifacts, _ = whole(variant, {n: s for n, s in specs.items() if n not in refused}, *how)
        return files, artifacts, refused

    with mock.patch("orchestrator.tasks.blocks.exportable_files", refusing):
        result = bench("--blocks", "pool,mlp", "--resolution", "8", "--json")
    assert f"pool left out at 8 px: {reported}" in result.stderr
    assert [row["block"] for row in json.loads(result.stdout)["blocks"]] == ["mlp"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blocks", "mha,swin"), r"unknown block 'swin'; known: mha, window"),
        (("--width", "30"), r"--width 30: expected a multiple of 4"),
        (("--resolution", "0,16"), r"--resolution 0: expected 1 to 512"),
        (("--output", "blocks.svg"), r"--output blocks.svg: expected a name that ends in .png or .json"),
    ],
)
def test_refusals_in_one_line(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        bench(*options)


def test_every_block_has_its_complexity_and_all_fit_at_16_px() -> None:
    chosen, refused = mixers(block_names(), 64, [16], 8)
    assert not refused
    assert all(mixer.block.complexity for mixer in chosen)
    assert all(mixer.block.in_channels == 64 for mixer in chosen)
    (cga,) = (mixer.block for mixer in chosen if mixer.name == "cga")
    n, d, h, q, w, k = 256, 64, 4, 16, 8, 5
    assert (
        cga.macs().total
        == n * d**2 * (h + 1) // h + 2 * n * d * q + w**2 * n * (h * q + d) + k**2 * n * h * q
    )
