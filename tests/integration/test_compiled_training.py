"""torch.compile of a supernet's modules: the same training, each module once, a line where there is no compiler."""

import random

import pytest
import torch

from search.spaces import get_space
from search.supernet.model.supernet import CompiledModules, Supernet, obstacle


def _gradients(supernet, arch, x):
    supernet.zero_grad()
    logits = supernet(x, arch)
    logits.square().mean().backward()
    return logits.detach(), {n: p.grad for n, p in supernet.named_parameters() if p.grad is not None}


def _same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-4, atol=1e-5)


def test_traced_modules_train_alike_and_are_traced_once():
    """The tracer alone, without a compiler: values, gradients, and the limit."""
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    supernet = Supernet(get_space("autovit-nano").with_classes(10))
    arch = supernet.space.sample(random.Random(0))
    x = torch.randn(2, 3, 64, 64)
    expected = _gradients(supernet, arch, x)
    supernet.compiled = CompiledModules(limit=3, backend=backend)
    for _ in range(2):
        _same(_gradients(supernet, arch, x), expected)
    assert len(graphs) == 3
    assert list(supernet.compiled.calls) == list(dict.fromkeys(g for _, g in supernet.path(arch)))[:3]


def test_a_compiler_that_fails_is_one_line():
    def broken(_graph, _inputs):
        raise RuntimeError("no compiler here\nat all")

    reason = obstacle(torch.device("cpu"), broken)
    assert "no compiler here" in reason
    assert "\n" not in reason
    assert obstacle(torch.device("cpu"), "eager") is None


@pytest.mark.slow
def test_compiled_classifier_trains_alike():
    reason = obstacle(torch.device("cpu"))
    if reason:
        pytest.skip(f"nothing can be compiled here: {reason}")
    supernet = Supernet(get_space("autovit-nano").with_classes(10))
    arch = next(
        arch
        for arch in (supernet.space.sample(random.Random(seed)) for seed in range(20))
        if arch.head == "fc"
    )
    slot, group = supernet.path(arch)[-1]
    module = supernet.slots[slot]
    weights = {
        name: part.take(supernet.get_parameter(part.source)).detach().requires_grad_()
        for part in supernet.slices(arch)
        if (name := part.source.removeprefix(f"slots.{slot}.")) != part.source
    }
    x = torch.randn(2, group[0].in_channels, 8, 8)
    expected = torch.func.functional_call(module, weights, (x,))
    found = CompiledModules().run(group, weights, x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), list(weights.values())),
        torch.autograd.grad(expected.square().sum(), list(weights.values())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
