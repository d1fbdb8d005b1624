"""`bench lut` on a folder of LUTs that a test made."""

import csv
import json
from pathlib import Path

import pytest

from luts.format.schema import HeldoutError
from luts.format.store import LutRef, LutStore
from orchestrator.tasks.lut_diff import short_names
from tests.support.bench import answer, bench, refused
from tests.support.report_world import make_lut


@pytest.fixture
def luts(tmp_path, monkeypatch):
    """Two versions of a LUT, the newer one the poorer, and where they lie; `name` is what both are called."""
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    store = LutStore([tmp_path / "luts"], lambda _: None)
    lut = make_lut()
    for mape, models in ((0.008, 12), (0.031, 2)):
        error = HeldoutError(models=models, mape=mape, within_5=1.0, within_10=1.0, kendall_tau=None)
        store.write(lut_with(lut, heldout_error=error))
    return store


def lut_with(lut, **meta):
    return type(lut)(lut.meta.model_copy(update=meta), lut.entries, lut.models, lut.samples)


@pytest.fixture
def name(luts):
    return luts.list()[0].name


def own(reported, name):
    """The rows of LUTs of this name, without the package's."""
    return [row for row in json.loads(reported) if row["lut"].startswith(name)]


def test_the_list_marks_the_version_that_a_name_means(luts, name):
    done = bench("lut", "list", "--json")
    first, second = own(done.stdout, name)
    assert (first["current"], second["current"]) == (None, "newest")
    assert (first["worse_than"], second["worse_than"]) == (None, f"{name}/v1")
    assert f"bench lut pin {name}/v1" in answer("lut", "list")
    answer("lut", "pin", f"{name}@v1")
    assert [row["current"] for row in own(answer("lut", "list", "--json"), name)] == ["pinned", None]


def test_list_sorted_by_latency(luts, name):
    lut = luts.load(f"{name}/v1")
    for device, times, reference in (
        ("slow", 4.0, "reference"),
        ("fast", 0.5, "reference"),
        ("odd", 9.0, "other"),
    ):
        info = lut.meta.device.model_copy(update={"name": device})
        ms = times * lut.meta.reference_ms
        luts.write(lut_with(lut, device=info, reference_ms=ms, reference_id=reference))
    rows = json.loads(answer("lut", "list", "--sort", "latency", "--json"))
    rows = [row for row in rows if row["lut"].split("/")[0] in ("phone", "slow", "fast", "odd")]
    assert [(row["lut"].split("/")[0], row["times_fastest"]) for row in rows] == [
        ("odd", 1.0),
        ("fast", 1.0),
        ("phone", 2.0),
        ("slow", 8.0),
    ]
    assert "x fastest" in answer("lut", "list", "--sort", "latency")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("lut", "board", "s3://luts"), "bench lut list --sort latency"),
        (("native",), "bench doctor native"),
        (("cache", "--trim", "0"), "bench doctor cache"),
    ],
)
def test_former_commands_name_the_new_one(old, new):
    refused(bench(*old), 2, new)


def test_a_version_is_pinned_and_the_pin_removed(name):
    assert answer("lut", "pin", f"{name}/v1") == f"{name}/v1 is pinned\n"
    assert json.loads(answer("lut", "show", name, "--json"))["lut"] == f"{name}/v1"
    assert answer("lut", "pin", "--off", name) == f"{name} means {name}/v2; nothing is pinned\n"
    assert json.loads(answer("lut", "show", name, "--json"))["lut"] == f"{name}/v2"


def test_a_pin_on_a_missing_version_can_be_removed(luts, name):
    (luts.roots[0] / name / "pinned.txt").write_text("v9\n")
    refused(bench("lut", "show", name), 6, "pinned but missing", "bench lut pin --off")
    answer("lut", "pin", "--off", name)
    answer("lut", "show", name)


def test_a_version_is_removed_by_its_whole_name_alone(luts, name):
    refused(bench("lut", "remove", name, "--yes"), 2, f"{name} means {name}/v2", "whole name")
    refused(bench("lut", "remove", f"{name}/v2"), 2, "would be deleted", "add --yes")
    assert len(own(answer("lut", "list", "--json"), name)) == 2
    assert answer("lut", "remove", f"{name}/v2", "--yes") == f"{name}/v2 is removed\n"
    folder = luts.roots[0] / name / "v1"
    answer("lut", "remove", folder, "--yes")
    assert own(answer("lut", "list", "--json"), name) == []


def test_broken_lut_is_listed_next_to_others(luts, name):
    samples = luts.roots[0] / name / "v2" / "samples.parquet"
    samples.chmod(0o644)
    samples.write_bytes(samples.read_bytes()[:-1])
    done = bench("lut", "list", "--json")
    assert done.returncode == 0
    first, second = own(done.stdout, name)
    assert (first["kind"], second["kind"]) == (luts.load(f"{name}/v1").meta.measured, "broken")
    assert str(samples.parent) in second["broken"]
    assert f"warning: {name}/v2 is broken: LUT in {samples.parent}: samples.parquet differs" in done.stderr
    refused(bench("lut", "verify", f"{name}/v2"), 6, str(samples.parent), "samples.parquet")


@pytest.mark.parametrize(
    "command",
    [
        ("lut", "list"),
        ("lut", "show", "host"),
        ("predict", "autovit-nano-0", "--lut", "host"),
        ("report", "--lut", "host"),
        ("space", "show", "autovit-nano", "--lut", "host"),
        ("validate", "--lut", "host", "--device", "simulated"),
    ],
)
def test_missing_lut_folder_is_refused(tmp_path, command):
    refused(bench(*command, "--luts", tmp_path / "typo"), 2, f"--luts {tmp_path / 'typo'}", "not a folder")


def test_unknown_kind_lists_known_kinds(name):
    refused(bench("lut", "show", f"{name}/v1", "--kind", "mvit"), 2, "unknown kind 'mvit'", "mvit.layer")
    answer("lut", "show", f"{name}/v1", "--kind", "mvit.layer")


@pytest.fixture
def three(luts):
    """Three LUTs of one space: of a phone, of another of half its speed, and of a simulated one of fp16."""
    base = luts.load(luts.list()[0])
    for device, variant, measured, factor in (
        ("slow", "executorch-xnnpack-fp32-t2", "measured", 2.0),
        ("simulated-phone", "executorch-xnnpack-fp16-t2", "simulated", 1.0),
    ):
        entries = tuple(
            entry.model_copy(
                update={name: factor * getattr(entry, name) for name in ("ms", "ci_low", "ci_high")}
            )
            for entry in base.entries[:-1]
        )
        info = base.meta.device.model_copy(update={"name": device})
        changes = {"device": info, "variant": variant, "measured": measured}
        luts.write(type(base)(base.meta.model_copy(update=changes), entries, base.models, base.samples))
    return [ref.name + "/v1" for ref in luts.list() if ref.version == 1]


def test_luts_side_by_side_are_named_in_the_headers(three):
    phone, simulated, slow = three
    output = answer("lut", "diff", phone, slow, simulated)
    header = output.splitlines()[1]
    assert [word in header for word in ("phone/fp32-t2 ms", "slow/fp32-t2 / phone/fp32-t2", "(simulated) ms")]
    assert "slow/fp32-t2: " + slow in output
    assert output.endswith("SIMULATED: not measured on any device: simulated-phone/fp16-t2 (simulated)\n")
    rows = json.loads(answer("lut", "diff", phone, slow, simulated, "--json"))
    assert rows["luts"] == [phone, slow, simulated]
    assert {tuple(entry["ratios"]) for entry in rows["entries"]} == {(1.0, 2.0, 1.0)}
    assert "SIMULATED" not in answer("lut", "diff", phone, slow)


def test_luts_by_kind_and_by_rank(three):
    phone, _, slow = three
    kinds = answer("lut", "diff", phone, slow, "--by", "kind")
    assert "mbconv" in kinds
    assert "mvit.layer(" not in kinds
    ranks = answer("lut", "diff", phone, slow, "--by", "rank")
    assert "slow rank" in ranks.splitlines()[0]
    assert "ranks: all equal" in ranks
    assert "not in all others: " in ranks


def test_a_diff_as_csv(three, tmp_path):
    phone, _, slow = three
    reported = json.loads(answer("lut", "diff", phone, slow, "-o", tmp_path / "d.csv", "--json"))
    with (tmp_path / "d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [entry["key"] for entry in reported["entries"]]
    assert {(row["ratio phone"], row["ratio slow"]) for row in rows} == {("1.0", "2.0")}
    refused(bench("lut", "diff", phone, slow, "-o", "d.txt"), 2, "d.txt", ".csv")


def test_luts_that_can_t_be_compared(three):
    refused(bench("lut", "diff", three[0]), 2, "two or more")
    refused(bench("lut", "diff", three[0], three[0]), 2, "given twice")
    foreign = "linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1"
    refused(bench("lut", "diff", three[0], foreign), 2, "no block is in all of them", "of autovit-xxs")


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["d/s/executorch-xnnpack-fp32-t1/v1", "d/s/executorch-xnnpack-fp32-t1/v2"], ["v1", "v2"]),
        (["d/s/executorch-xnnpack-fp32-t1/v1", "d/s/executorch-xnnpack-int8-t1/v1"], ["fp32-t1", "int8-t1"]),
        (["d/s/a-b/v1", "d/s/a/v1", "e/s/a/v1"], ["d/a-b", "d/a", "e/a"]),
        (["pixel-8/s/x/v1", "pixel-9/s/x/v1"], ["pixel-8", "pixel-9"]),
    ],
)
def test_luts_are_called_by_what_tells_them_apart(names, short):
    refs = []
    for place, text in enumerate(names):
        device, space, variant, version = text.split("/")
        refs.append(LutRef(device, space, variant, int(version[1:]), Path(f"/{place}")))
    assert short_names(refs) == short


def test_failed_models_are_listed_with_a_reason(luts, name):
    lut = luts.load(f"{name}/v1")
    failures = {f"{digit}" * 12: "no operator aten.roll" for digit in range(5)}
    path = luts.write(lut_with(lut, failures=failures))
    reported = answer("lut", "show", path)
    assert (
        "left out     000000000000, 111111111111, 222222222222 and 2 more; 000000000000: no operator"
        in reported
    )
    assert "left out" not in answer("lut", "show", f"{name}/v1")
