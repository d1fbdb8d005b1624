"""`import search`, as somebody in a notebook uses it."""

import random
import subprocess
import sys
import types

import pytest

import luts
import search


def test_the_package_loads_without_what_its_names_need():
    heavy = "torch", "numpy", "pydantic", "search.spaces"
    code = (
        f"import search, sys; assert not sys.modules.keys() & set({heavy}); assert 'get_space' in dir(search)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_spaces_and_blocks_need_no_torch():
    code = (
        "import search, sys; search.register; search.parse_key(search.get_arch('mobilevit-s').keys()[0]); "
        "search.list_spaces(); search.get_space('autovit-nano').size(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_leads_somewhere_and_others_do_not():
    assert set(search.__all__) <= set(dir(search))
    for name in search.__all__:
        assert hasattr(search, name)
    with pytest.raises(AttributeError, match=r"module 'search' has no attribute 'nothing'"):
        search.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert search.__version__[0].isdigit()


def test_an_architecture_becomes_a_network():
    arch = search.get_space("autovit-nano").sample(random.Random(0))
    network = search.build_network(arch.blocks())
    assert sum(p.numel() for p in network.parameters()) == arch.params()
    assert search.load_arch("autovit-xxs-paper") == search.get_arch("autovit-xxs-paper")


class Larger:
    """An objective that needs neither weights nor images."""

    fingerprint = "a" * 64

    def accuracy(self, arch):
        return arch.params() / 1e8


def test_a_lut_an_objective_and_a_budget_make_a_search():
    lut = luts.load("autovit-xxs/executorch-xnnpack-fp32-t1")
    space = search.covered_space(lut)
    assert space.resolutions == (256,)
    settings = search.SearchSettings(strategy="random", population=20, generations=0, draws=500)
    budget = search.Constraints(latency_ms=lut.meta.reference_ms, cautious=False)
    result = search.search(space, lut, Larger(), budget, settings)
    winner = result.winner.architecture()
    assert lut.predict(winner).ms <= lut.meta.reference_ms
    assert winner.params() == max(one.params for one in result.evaluated)


def test_what_it_gives_is_documented():
    for name in search.__all__:
        value = getattr(search, name)
        if isinstance(value, type | types.FunctionType):
            assert value.__doc__, name
