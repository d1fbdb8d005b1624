"""`import search`, as somebody in a notebook uses it."""

import subprocess
import sys

import pytest

import luts
import search


def test_import_is_light():
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


def test_names_of_the_package():
    assert set(vars(search)["__all__"]) <= set(dir(search))
    for name in vars(search)["__all__"]:
        assert hasattr(search, name)
    with pytest.raises(AttributeError):
        search.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert search.__version__[0].isdigit()


class Larger:
    """An objective that needs neither weights nor images."""

    fingerprint = "a" * 64

    def accuracy(self, arch):
        return arch.params() / 1e8


def test_search_with_a_lut_and_an_objective():
    lut = luts.load("autovit-xxs/executorch-xnnpack-fp32-t1")
    space = search.covered_space(lut)
    assert space.resolutions == (256,)
    settings = search.SearchSettings(strategy="random", population=20, generations=0, draws=500)
    budget = search.Constraints(latency_ms=lut.meta.reference_ms, cautious=False)
    result = search.search(space, lut, Larger(), budget, settings)
    winner = result.winner.architecture()
    assert lut.predict(winner).ms <= lut.meta.reference_ms
    assert winner.params() == max(one.params for one in result.evaluated)
