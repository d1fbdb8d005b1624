"""Suites and published figures: networks match their rows, and published figures are not LUTs."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.schema import LutMeta
from luts.published import REFERENCE, load_published
from orchestrator.export import ExportSpec
from orchestrator.export.lower.counting import Counts, count_module
from orchestrator.export.lower.source import build_module
from orchestrator.report.figures import _label_places
from orchestrator.suites import list_suites, load_suite
from orchestrator.tasks import measure
from orchestrator.tasks.networks import at_resolution, named_network
from orchestrator.tasks.suite import MeasuredSuite, rank_correlation, suite_rows
from search.blocks import parse_key
from search.blocks.timm_networks import create_classifier, native_side
from search.networks import build_block
from tests.support.bench import invoke
from tests.support.errors import raises

TABLE2 = load_suite("autovit-table2")
SURVEY = load_suite("efficient-vit-survey")


def test_the_published_table_matches_the_paper():
    table = load_published("autovit-table2")
    found = {r.row: (r.params_m, r.flops_g, r.top1_percent, r.latency_ms) for r in table.rows}
    assert len(found) == 21
    assert found["AutoViT_XXS"] == (1.8, 0.3, 71.3, 10.2)
    assert found["PVT"] == (13.1, 2.1, 78.7, 54.5)
    assert found["DenseNet-169"] == (14, 6.7, 76.2, None)
    assert sum(row.latency_ms is not None for row in table.rows) == 15
    assert table.latency_device == "iPhone 13"


def test_searches_of_table_7_are_those_of_the_paper():
    rows = load_published("autovit-table7").rows
    assert {(r.row, r.params_m, r.flops_g, r.top1_percent) for r in rows} == {
        ("ASViT", 29, 5.3, 81.2),
        ("GLiT", 7.2, 1.4, 76.3),
        ("Autoformer", 5.7, 1.3, 74.7),
        ("AutoViT_S", 6.3, 1.4, 79.2),
    }


def test_published_figures_are_not_a_lut():
    for path in REFERENCE.glob("*.json"):
        with pytest.raises(ValueError):
            LutMeta.model_validate_json(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "measured"}, "label"),
        ({"latency_device": None}, "without the device"),
        ({"rows": []}, "rows"),
        ({"samples": []}, "samples"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, change, says):
    document = json.loads((REFERENCE / "autovit-table2.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps(document | change))
    with pytest.raises(InvalidArtifactError, match=says):
        load_published("t", tmp_path)


def test_unknown_names_are_refused():
    with raises("unknown_suite"):
        load_suite("autovit-table-2")
    with pytest.raises(UsageError, match="there are autovit-table2"):
        load_published("none")
    with pytest.raises(UsageError, match="unknown network 'mobilevit-xxxs'; did you mean mobilevit-xxs"):
        named_network("mobilevit-xxxs")
    with pytest.raises(UsageError, match="did you mean deit_tiny_patch16_224"):
        build_module(ExportSpec(module="timm:deit_tiny_patch16_22"))


def test_unsupported_resolutions_are_refused():
    with pytest.raises(UsageError, match=r"can't take 100 px; it takes 192, 224, 256, 288 px"):
        at_resolution("autovit-xxs-paper", named_network("autovit-xxs-paper"), 100)
    with pytest.raises(UsageError, match=r"can't take 200 px; it takes 224 px"):
        at_resolution("shufflenetv2-1.0", named_network("shufflenetv2-1.0"), 200)
    with pytest.raises(UsageError, match="patches are 16 px wide, and 100 is not a multiple"):
        build_module(ExportSpec(module="timm:deit_tiny_patch16_224@100"))
    assert at_resolution("a", named_network("autovit-xxs-paper"), 224).resolution == 224


def _own_networks():
    entries = (*TABLE2.networks, *SURVEY.networks)
    return {entry.model: entry for entry in entries if not entry.model.startswith("timm:")}.values()


def test_every_network_has_a_row_and_a_name():
    for name in list_suites():
        for entry in load_suite(name).networks:
            assert entry.published.row == entry.row
            ExportSpec(module=entry.model) if entry.model.startswith("timm:") else named_network(entry.model)


@pytest.mark.parametrize("entry", _own_networks(), ids=lambda entry: entry.row)
def test_own_networks_have_the_papers_parameters(entry):
    _agrees(entry, named_network(entry.model).params())


@pytest.mark.parametrize(
    "row", ["MobileNetv1", "MobileNetv2", "MobileNetv3", "DeiT-T", "PiT-T", "CrossViT-T", "PVT"]
)
def test_timm_networks_have_the_papers_parameters(row):
    entry = next(entry for entry in TABLE2.networks if entry.row == row)
    module, _ = build_module(ExportSpec(module=entry.model))
    _agrees(entry, sum(p.numel() for p in module.parameters()))


@pytest.mark.parametrize(
    "entry", [e for e in SURVEY.networks if e.model.startswith("timm:")], ids=lambda entry: entry.row
)
def test_networks_of_the_survey_have_the_published_parameters(entry):
    name, _, side = entry.model.removeprefix("timm:").partition("@")
    with torch.device("meta"):
        module = create_classifier(name, int(side or native_side(name)))
    assert module.num_classes == 1000
    if entry.published.params_m:
        _agrees(entry, sum(p.numel() for p in module.parameters()))


def _agrees(entry, params):
    """Agree within the table's rounding, whole or tenths of millions, unless the suite says how they differ."""
    printed = entry.published.params_m
    agrees = abs(params / 1e6 - printed) <= (0.501 if printed == int(printed) else 0.0501)
    assert agrees != ("M parameters" in entry.differs), (params, printed)


def test_module_and_block_counts_agree():
    spec = parse_key("mvit.layer(d=8,heads=2,head_dim=4,ratio=2,patch=2)@8")
    module, x = build_block(spec)
    macs = spec.macs()
    assert count_module(module.eval(), (x,)) == Counts(spec.params(), macs.conv_linear, macs.total)


def test_ranks_and_tau_use_networks_with_both_latencies():
    chosen = [e for e in TABLE2.networks if e.row in ("MobileNetv1", "MobileNetv2", "ShuffleNetv2", "DeiT-T")]
    ms = dict(zip([e.model for e in chosen], (3.0, 1.0, 2.0), strict=False))
    found = suite_rows(chosen, {model: {"ms": value} for model, value in ms.items()}, {chosen[3].model: "no"})
    rows = {row["row"]: row for row in found}
    assert [rows[n]["rank"] for n in ("MobileNetv1", "MobileNetv2", "ShuffleNetv2", "DeiT-T")] == [
        3,
        1,
        2,
        None,
    ]
    assert (rows["MobileNetv1"]["shared_rank"], rows["MobileNetv1"]["published_rank"]) == (2, 2)
    assert rows["ShuffleNetv2"]["shared_rank"] is None
    assert rows["DeiT-T"]["failure"] == "no"
    assert rank_correlation(found) == (1.0, 2)


def test_latencies_of_different_phones_are_not_ranked_together():
    rows = (
        *("RepViT-M0.9", "EfficientFormerV2-S0", "EfficientFormer-L1"),
        *("SwiftFormer-XS", "MobileViT_XXS", "Swin-T"),
    )
    chosen = [next(e for e in SURVEY.networks if e.row == row) for row in rows]
    ms = dict(zip([e.model for e in chosen], (2.0, 3.0, 1.0, 4.0, 5.0, 6.0), strict=True))
    found = suite_rows(chosen, {model: {"ms": value} for model, value in ms.items()}, {})
    measured = MeasuredSuite("efficient-vit-survey", SURVEY, None, found, Path())
    by_device = measured.by_device
    tau, networks = by_device["iPhone 12"]
    assert tau == pytest.approx(-(2**0.5) / 3**0.5)
    assert networks == 3
    assert by_device["iPhone 14"] == (None, 1)
    assert by_device["iPhone 13"] == (None, 1)
    assert sum(count for _, count in by_device.values()) == 5


def test_labels_that_crowd_an_edge_of_the_picture_stay_apart_and_inside():
    values = {str(index): 99.0 - index / 10 for index in range(40)}
    places = _label_places(values, 1.0, 100.0, gap := 1 / 41)
    heights = sorted(math.log(place) / math.log(100.0) for place in places.values())
    assert gap / 2 - 1e-9 <= heights[0]
    assert heights[-1] <= 1 - gap / 2 + 1e-9
    assert min(b - a for a, b in itertools.pairwise(heights)) >= gap - 1e-9


@pytest.mark.parametrize(("option", "tested"), [("--no-self-test", False), ("--self-test", True)])
def test_the_self_test_option_reaches_the_measurement(tmp_path, monkeypatch, option, tested):
    requested = []

    def measure_together(_device, _variant, _files, options, **_):
        requested.append(options.self_test)
        raise UsageError("enough")

    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path))
    monkeypatch.setattr(measure, "exportable_files", lambda *_: ({"a": None}, {}, {}))
    monkeypatch.setattr(measure, "measure_together", measure_together)
    with pytest.raises(UsageError, match="enough"):
        invoke("measure", "suite", "autovit-table2", "--device", "simulated", option)
    assert requested == [tested]
