"""The small model of tests/support/tiny_model.py for ONNX Runtime and LiteRT, made without their exporters."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

TINY_TFLITE = Path(__file__).with_name("tiny.tflite")
"""Made with `orchestrator.export.lower.other_runtimes.lower_to_litert` (litert-torch 0.10.0)."""


def tiny_onnx(folder: Path) -> Path:
    """A convolution, SiLU, the mean of each channel: float32[1, 3, 32, 32] to float32[1, 8]."""
    onnx = pytest.importorskip("onnx")
    import torch
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 8, 3, 2, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(value.detach().numpy(), name)
        for name, value in (("w", conv.weight), ("b", conv.bias))
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / "tiny.onnx"
    onnx.save(model, path)
    return path


def sha256(path: Path) -> str:
    """By which agents know a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
