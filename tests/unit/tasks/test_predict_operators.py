"""Networks that people bring, priced by a LUT of operators."""

import io
import json
from pathlib import Path

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from luts.format.lut import Lut
from luts.format.operator_latency import OperatorPrediction
from luts.format.store import LutStore
from orchestrator.export.lower.operators import lower_with_operators
from orchestrator.export.lower.xnnpack import FastXnnpackPartitioner
from orchestrator.tasks.predict import Predictions, module_of, predict, predict_module
from tests.support.bench import bench
from tests.support.errors import raises
from tests.support.operator_world import operator_study
from tests.support.winner_world import make_lut

NETWORKS = """
import torch
from torch import nn

class Branch(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x * 2

def build():
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)).train()

def sized():
    return nn.Linear(8, 16), torch.zeros(3, 8)

def misfit():
    return nn.Conv2d(4, 8, 3)

def branch():
    return Branch()

number = 5
"""


@pytest.fixture(scope="module")
def lut() -> Lut:
    return operator_study().lut()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "networks_of_mine.py"
    path.write_text(NETWORKS)
    return path


def test_a_module_is_priced_by_its_operators(lut: Lut, file: Path, tmp_path: Path) -> None:
    """A convolution of 1x1 at 32 x 32 px is a product of 1024 rows; its file has the same price."""
    predicted = predict(lut, f"{file}:build", resolution=32)[f"{file}:build"]
    assert isinstance(predicted, OperatorPrediction)
    assert "gemm(m=1024,k=3,n=16)" in {each.key for each in predicted.operators}
    module, inputs = module_of(f"{file}:build", 32)
    data, operators = lower_with_operators(module, inputs)
    (tmp_path / "net.pte").write_bytes(data)
    assert predict(lut, str(tmp_path / "net.pte")) == {str(tmp_path / "net.pte"): predicted}
    assert lut.predict([operator.key for operator in operators]) == predicted


def test_a_module_in_python(lut: Lut, file: Path) -> None:
    sized = predict(lut, f"{file}:sized")[f"{file}:sized"]
    assert predict_module(lut, nn.Linear(8, 16), torch.zeros(3, 8)).ms == pytest.approx(sized.ms)
    with raises("not_priceable"):
        predict_module(make_lut(), nn.Linear(8, 16))


def test_a_function_may_return_inputs_too(lut: Lut, file: Path) -> None:
    (predicted,) = predict(lut, [f"{file}:sized"]).values()
    assert isinstance(predicted, OperatorPrediction)
    assert "gemm(m=3,k=8,n=16)" in {each.key for each in predicted.operators}


def test_parts_of_a_prediction_add_up(lut: Lut) -> None:
    blocks = [*lut.models[-1].blocks, "portable.sort(in=5000000,out=10000000)"]
    predictions = Predictions({"a": lut.predict(blocks)}, operators=True)
    (row,) = predictions.to_dict()
    assert row["arithmetic"] + row["memory"] + row["call"] == pytest.approx(1)
    outside = [each for each in row["operators"] if each["key"].startswith("portable.")]
    assert row["outside"] == pytest.approx(sum(each["ms"] for each in outside) / row["ms"])
    assert [each["ms"] for each in row["operators"]] == sorted(
        (o["ms"] for o in row["operators"]), reverse=True
    )
    assert row["extrapolated"]
    assert row["uncertain"][0].startswith("portable.sort")
    *_, last = predictions.report()
    assert isinstance(last, str)
    assert "a is extrapolated" in last


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("branch", "unsupported_operator", "data-dependent"),
        ("misfit", "unsupported_operator", "to have 4 channels"),
        ("number", "not_a_module", "returns a torch.nn.Module"),
        ("absent", "not_a_module", "returns a torch.nn.Module"),
    ],
)
def test_what_can_not_be_exported_is_refused(
    lut: Lut, file: Path, function: str, code: str, words: str
) -> None:
    with raises(code) as caught:
        predict(lut, f"{file}:{function}")
    assert words in str(caught.value)


def test_a_program_of_dynamic_shapes_is_refused(lut: Lut, tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    captured = torch.export.export(nn.Linear(8, 4), (torch.zeros(2, 8),), dynamic_shapes=(batch,))
    lowered = to_edge_transform_and_lower(captured, partitioner=[FastXnnpackPartitioner()])
    (tmp_path / "net.pte").write_bytes(io.BytesIO(lowered.to_executorch().buffer).getvalue())
    with raises("unreadable_program") as caught:
        predict(lut, str(tmp_path / "net.pte"))
    assert "dynamic shapes" in str(caught.value)


@pytest.mark.parametrize("network", ["timm:resnet18", "resnet18", "net.pte", "mine.py:build"])
def test_the_lut_of_a_space_says_which_one_is_needed(network: str) -> None:
    with raises("not_priceable") as caught:
        predict(make_lut(), network)
    assert "bench profile --space operators" in str(caught.value)


def test_the_command(lut: Lut, file: Path, tmp_path: Path) -> None:
    LutStore([tmp_path]).write(lut)
    asked = ("predict", f"{file}:sized", "--lut", "operators", "--luts", tmp_path)
    (row,) = json.loads(bench(*asked, "--json").stdout)
    assert row["low"] < row["ms"] < row["high"]
    shown = bench(*asked, "-o", tmp_path / "priced.svg", "-o", tmp_path / "priced.json").stdout
    assert "gemm(m=3,k=8,n=16)" in shown
    assert json.loads((tmp_path / "priced.json").read_text()) == [row]
    assert "outside the delegates" in (tmp_path / "priced.svg").read_text(), "its border"
    moved = bench("lut", "predict", "operators")
    assert moved.returncode == 2
    assert "bench predict NETWORK --lut LUT" in moved.stderr


def test_a_lut_of_a_space_draws_no_operators() -> None:
    with raises("option_does_not_apply"):
        Predictions({}, operators=False).draw()
