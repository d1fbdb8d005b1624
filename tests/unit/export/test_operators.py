"""Operators of an exported network, read from its program."""

import contextlib
import dataclasses
import struct
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.nn import functional

from luts.format.errors import InvalidArtifactError
from luts.format.operators import parse_operator
from orchestrator.agent.flatbuffer import XNNPACK_SCHEMA, FlatBuffer, open_program, read_schema
from orchestrator.export.lower import operators
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.operators import delegate_operators, lower_with_operators, read_operators
from orchestrator.export.lower.xnnpack import recorded_graphs
from tests.support.errors import raises


def test_tensor_of_too_many_dimensions_is_refused() -> None:
    """A product of a million sizes, which fit into a file of 4 MB, takes many minutes."""
    assert operators.product([2] * operators.MAX_RANK) == 2**64
    with pytest.raises(ValueError, match="more than 64 dimensions"):
        operators.count(types.SimpleNamespace(dims=[2**32 - 1] * 1_000_000))


class Everything(nn.Module):
    """One operator of each sort inside and outside of the delegates; 4 channels at 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, 2, 1)
        self.point = nn.Conv2d(8, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 5, 1, 2, groups=8)
        self.large = nn.Conv2d(8, 8, 7, 1, 3, groups=8)
        self.grouped = nn.Conv2d(8, 6, 3, 1, 1, groups=2)
        self.up = nn.ConvTranspose2d(6, 5, 2, 2)
        self.linear = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = functional.relu(self.stem(x))
        y = y + functional.hardswish(self.point(y))
        y = torch.clamp(y * self.depthwise(y), 0.0, 6.0)
        z = self.large(y) * y.mean((2, 3), keepdim=True)
        tokens = z.flatten(2).transpose(1, 2)
        scores = torch.bmm(tokens, tokens.transpose(1, 2)).softmax(-1)
        grouped = functional.max_pool2d(torch.cat([self.grouped(z), z[:, :3]], 1), 2)
        return self.linear(torch.bmm(scores, tokens)), grouped, self.up(self.grouped(z)).cumsum(2)


EXPECTED = {
    "conv(h=4,w=4,in=4,out=8,kh=3,kw=3,sh=2,sw=2)": 1,
    "gemm(m=16,k=8,n=8)": 1,
    "gemm(m=16,k=8,n=6)": 1,
    "depthwise(h=4,w=4,c=8,kh=5,kw=5)": 1,
    "depthwise_large(h=4,w=4,c=8,kh=7,kw=7)": 1,
    "grouped(h=4,w=4,in=4,out=3,groups=2,kh=3,kw=3)": 2,
    "conv_transpose(h=4,w=4,in=6,out=5,kh=2,kw=2,sh=2,sw=2)": 1,
    "bmm(m=16,k=8,n=16)": 1,
    "bmm(m=16,k=16,n=8)": 1,
    "softmax(m=16,n=16)": 1,
    "hardswish(n=128)": 1,
    "add(n=128)": 1,
    "multiply(n=128)": 1,
    "clamp(n=128)": 1,
    "multiply_broadcast(n=128,other=8,run=8)": 1,
    "globalavgpooling(m=16,c=8)": 1,
    "maxpooling(h=2,w=2,c=9,kh=2,kw=2,sh=2,sw=2)": 1,
    "copy(n=96,run=6)": 1,
    "copy(n=48,run=3)": 1,
    "slice(n=48,run=3)": 1,
    "portable.cumsum(in=320,out=320,stride=8,run=8)": 1,
}
"""By hand; the clamp after the product is an operator, the one after the convolution is not."""


@pytest.fixture(scope="module")
def lowered() -> tuple[bytes, tuple[Any, ...]]:
    torch.manual_seed(0)
    return lower_with_operators(Everything().eval(), (torch.randn(1, 4, 8, 8),))


def written(folder: Path, data: bytes) -> Path:
    path = folder / "net.pte"
    path.write_bytes(data)
    return path


def test_operators_and_their_sizes_by_hand(lowered: tuple[bytes, tuple[Any, ...]]) -> None:
    found = Counter(operator.key for operator in lowered[1])
    assert {key: found[key] for key in EXPECTED} == EXPECTED
    kinds = {parse_operator(key).kind for key in found.keys() - EXPECTED.keys()}
    assert kinds <= {"border", "transpose", "reshape", "copy"}
    assert found.total() == len(lowered[1])


def test_every_field_of_a_payload_is_read_back(
    lowered: tuple[bytes, tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_graphs() as graphs:
        data = lower_to_executorch(Everything().eval(), (torch.randn(1, 4, 8, 8),)).data
    read: list[Any] = []

    def keep(graph: Any) -> list[Any]:
        read.append(graph)
        return []

    monkeypatch.setattr(operators, "delegate_operators", keep)
    read_operators(written(tmp_path, data))
    for graph, recorded in zip(read, (each.graph for each in graphs), strict=True):
        same(graph.xnodes, recorded.xnodes)
        same(graph.xvalues, recorded.xvalues)
        same((graph.input_ids, graph.output_ids), (recorded.input_ids, recorded.output_ids))


def same(read: Any, recorded: Any) -> None:
    if dataclasses.is_dataclass(recorded):
        assert type(read).__name__ == type(recorded).__name__
        for field in dataclasses.fields(recorded):
            same(getattr(read, field.name), getattr(recorded, field.name))
    elif isinstance(recorded, list | tuple):
        for one, other in zip(read, recorded, strict=True):
            same(one, other)
    elif hasattr(recorded, "name"):
        assert read.name == recorded.name
    else:
        assert read == (recorded if recorded is None else pytest.approx(float(recorded)))


def test_int8_operators_are_of_the_same_kinds() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    _, found = lower_with_operators(network, (torch.randn(1, 3, 8, 8),), precision="int8")
    keys = {operator.key for operator in found}
    assert {"conv.int8(h=4,w=4,in=3,out=8,kh=3,kw=3,sh=2,sw=2)", "gemm.int8(m=16,k=8,n=4)"} <= keys
    assert {"convert.int8(n=192)", "convert(n=64)"} <= keys


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x + functional.relu(functional.relu(x).exp())


def test_a_clamp_without_a_producer_that_clamps_is_an_operator() -> None:
    _, found = lower_with_operators(Squared().eval(), (torch.randn(2, 3),))
    assert Counter(operator.kind for operator in found) == {
        "border": 1,
        "square": 1,
        "clamp": 2,
        "exp": 1,
        "add": 1,
    }


def test_an_average_pool_has_no_dilation() -> None:
    _, found = lower_with_operators(nn.AvgPool2d(2).eval(), (torch.randn(1, 3, 4, 4),))
    assert "avgpooling(h=2,w=2,c=3,kh=2,kw=2,sh=2,sw=2)" in {operator.key for operator in found}


class ComputedBias(nn.Module):
    """A product that XNNPACK leaves to the portable kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, x[0, :5])


def test_a_product_outside_the_delegate_has_its_multiply_accumulates() -> None:
    _, found = lower_with_operators(ComputedBias().eval(), (torch.randn(4, 6),))
    (product,) = (operator for operator in found if operator.kind == "portable.addmm")
    assert product.key == "portable.addmm(in=59,out=20,taps=6,run=5)"
    assert product.features.macs == 4 * 5 * 6


def portable(path: Path) -> Path:
    program = torch.export.export(nn.Sigmoid(), (torch.zeros(2, 3),))
    path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
    return path


def test_a_program_that_is_not_for_xnnpack_is_refused(
    lowered: tuple[bytes, tuple[Any, ...]], tmp_path: Path
) -> None:
    with raises("unreadable_program", InvalidArtifactError) as caught:
        read_operators(portable(tmp_path / "portable.pte"))
    assert "no backend" in str(caught.value)
    other = written(tmp_path, lowered[0].replace(b"XnnpackBackend", b"VulkanBackend\0"))
    with raises("unreadable_program", InvalidArtifactError) as caught:
        read_operators(other)
    assert "VulkanBackend" in str(caught.value)
    with raises("unreadable_program", InvalidArtifactError):
        read_operators(tmp_path / "absent.pte")


def test_a_damaged_file_is_one_clear_error(lowered: tuple[bytes, tuple[Any, ...]], tmp_path: Path) -> None:
    """Cut off anywhere before the constants that follow the delegates, or with any four bytes changed."""
    data = lowered[0]
    ends = data.rindex(b"XH00")
    for length in (0, 3, 8, 100, 1000, ends, ends + 40, ends + 400):
        with raises("unreadable_program", InvalidArtifactError):
            read_operators(written(tmp_path, data[:length]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        place = int(torch.randint(0, len(data) - 4, (), generator=generator))
        hostile = data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]
        with contextlib.suppress(InvalidArtifactError):
            read_operators(written(tmp_path, hostile))


def test_a_vector_that_says_it_is_huge_is_not_read() -> None:
    """A root table whose one field is a vector of 2^31 - 1 numbers."""
    vtable, table = struct.pack("<HHH", 6, 8, 4), struct.pack("<iI", 6, 4)
    data = struct.pack("<I", 10) + vtable + table + struct.pack("<I", 2**31 - 1) + bytes(64)
    types = dict(read_schema(XNNPACK_SCHEMA))
    types["Root"] = type("Root", (types["XNNGraph"],), {"fields": {"numbers": (0, "[uint]")}})
    with pytest.raises(ValueError, match="elements"):
        _ = FlatBuffer(data, types).table("Root").numbers


def test_many_calls_of_a_delegate_are_bounded(
    lowered: tuple[bytes, tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "MAX_OPERATORS", len(lowered[1]) - 1)
    with raises("unreadable_program", InvalidArtifactError):
        read_operators(written(tmp_path, lowered[0]))


def test_the_operators_of_an_empty_delegate_are_its_border() -> None:
    graph = FlatBuffer(struct.pack("<IHHi", 8, 4, 4, 4), read_schema(XNNPACK_SCHEMA)).table("XNNGraph")
    assert [operator.key for operator in delegate_operators(graph)] == ["border(n=0,tensors=0)"]


def test_constants_are_not_copied(lowered: tuple[bytes, tuple[Any, ...]]) -> None:
    program, plan = open_program(lowered[0])
    assert plan.name == "forward"
    assert isinstance(program.constant_buffer, list)
