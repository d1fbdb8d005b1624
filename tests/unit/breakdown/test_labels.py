import numpy as np
import pytest

from orchestrator.breakdown.tracing import (
    OperationLabel,
    faster_half_ms,
    match_labels,
)
from orchestrator.measure.traces import event_word
from orchestrator.wire.messages import TracedOperation


def operations(*names):
    return [TracedOperation(name=name, call=0, ns=1.0) for name in names]


def test_events_and_operations_meet_in_one_word():
    assert event_word("Fully Connected (NC, F32) GEMM #13") == "weights"
    assert event_word("Transpose (ND, X32) #3") == event_word("native_call_permute_copy.out") == "permute"
    assert event_word("Mean (ND) Reduce2 #1") == "mean"
    assert event_word("GELU (NC) #1") == "gelu"


def test_merged_transpose_keeps_alignment():
    labels = [
        OperationLabel("weights", "attention", "projection", 6, 20),
        OperationLabel("permute", "attention", "reshape"),
        OperationLabel("bmm", "attention", "product"),
        OperationLabel("weights", "mlp", "projection"),
        OperationLabel("add", "elementwise", "elementwise"),
    ]
    events = operations(
        "Fully Connected (NC, F32) GEMM #1",
        "Batch Matrix Multiply (NC, F32) GEMM #1",
        "Fully Connected (NC, F32) GEMM #2",
        "Add (ND) #1",
    )
    assert match_labels(events, labels) == ([labels[0], *labels[2:]], 0)


def test_unmatched_event_uses_its_name():
    events = operations("Convolution (NHWC, F32) IGEMM #1", "Clamp (NC) #1", "Add (ND) #1")
    found, by_name = match_labels(events, [OperationLabel("add", "elementwise", "elementwise", 0, 12)])
    assert [(label.kind, label.part) for label in found] == [
        ("convolution", "projection"),
        ("activation", "activation"),
        ("elementwise", "elementwise"),
    ]
    assert [(label.macs, label.data_bytes) for label in found] == [(None, None), (None, None), (0, 12)]
    assert by_name == 2


def test_the_slower_half_does_not_count():
    assert faster_half_ms(np.array([9e6, 1e6, 3e6, 8e6])) == pytest.approx(2.0)
