"""Words of the study of EfficientViT's claims: they follow from the numbers."""

import pytest

from tools.studies import efficientvit
from tools.studies._efficientvit_words import (
    Pair,
    beside,
    memory_bound_share,
    of_ablations,
    of_pairs,
    of_traces,
)


def row(model, batch, ratio, width=0.01):
    return {
        "model": model,
        "batch": batch,
        "ratio": ratio,
        "ratio_low": ratio / (1 + width),
        "ratio_high": ratio * (1 + width),
    }


PAIR = Pair("fast", "other", 1.5, "1.5 times as much")


def test_throughput_beside_another_network_of_the_same_batch():
    """Half the latency is twice the images; two intervals of 1 % each are one of 1.4 %."""
    rows = [row("fast", 1, 2.0), row("other", 1, 4.0), row("fast", 8, 10.0), row("other", 8, 9.0)]
    one = beside(rows, "fast", "other", 1)
    assert one.value == pytest.approx(2.0)
    assert one.low == pytest.approx(2.0 / 1.01 ** (2**0.5))
    assert one.high == pytest.approx(2.0 * 1.01 ** (2**0.5))
    assert (one.verdict, beside(rows, "fast", "other", 8).verdict) == ("faster", "slower")
    assert beside(rows, "fast", "fast", 8).verdict == "not told apart"


@pytest.mark.parametrize(
    ("latencies", "holds", "size"),
    [
        ((4.0, 3.6), "The direction holds at every batch", "the paper's size is reached at batch 1, 8"),
        ((4.0, 1.8), "The direction holds at batch 1 alone", "the paper's size is reached at batch 1."),
        ((2.01, 1.8), "It does not hold here", "the paper's size is reached at no batch"),
    ],
)
def test_what_holds_of_a_pair(latencies, holds, size):
    rows = [
        row("fast", 1, 2.0),
        row("other", 1, latencies[0]),
        row("fast", 8, 2.0),
        row("other", 8, latencies[1]),
    ]
    said = of_pairs([PAIR], rows)
    assert holds in said
    assert size in said


def test_what_undoing_a_choice_does():
    rows = [row("m4", 1, 1.0), row("m4", 8, 7.0)]
    rows += [row("m4-slow", 1, 1.2), row("m4-slow", 8, 8.0), row("m4-quick", 1, 0.9), row("m4-quick", 8, 6.0)]
    rows += [
        row("m4-same", 1, 1.001),
        row("m4-same", 8, 7.01),
        row("m4-both", 1, 1.2),
        row("m4-both", 8, 6.0),
    ]
    slow, quick, same, both = of_ablations(["slow", "quick", "same", "both"], rows, "m4").splitlines()
    assert "the paper's choice is the faster one here" in slow
    assert "the paper's choice costs throughput here" in quick
    assert "it makes no difference that these intervals tell" in same
    assert "which is faster depends on the batch" in both


def _traced(name, memory_bound_ms):
    part = {"kind": "attention", "part": "softmax", "ms": 4.0, "memory_bound_ms": memory_bound_ms}
    return {"model": name, "by": {"tracer": {"parts": [part], "whole_ms": 5.0, "roof": {}}}}


def test_who_spends_less_on_what_is_memory_bound():
    swin, deit, small = _traced("swin", 3.0), _traced("deit", 2.0), _traced("m4", 1.0)
    assert memory_bound_share(swin["by"]["tracer"]) == pytest.approx(0.75)
    assert "75% in `swin`, 50% in `deit`, 25% in `m4`" in of_traces([swin, deit, small])
    assert of_traces([swin, deit, small]).endswith("here `m4` does.")
    assert of_traces([small, deit, swin]).endswith("here `swin` does not.")


def test_a_study_at_the_recommended_budget_takes_less_than_25_minutes():
    """10 minutes for the pairs, 5 for the ablations, 2 for the traces."""
    assert efficientvit.quiet_minutes(600) == pytest.approx(17)


def test_a_part_that_is_measured_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path))
    calls = []

    def make():
        calls.append(1)
        return {"models": [{"model": "a"}], "more": 1}

    first = efficientvit._kept("throughput", "how", make)
    assert efficientvit._kept("throughput", "how", make) == first
    assert efficientvit._kept("throughput", "otherwise", make) != first
    assert len(calls) == 2
    assert efficientvit._rows(first) == [{"model": "a"}]
