"""A user's own space of own blocks, in a file that no one else knows: profiled, priced, searched, exported."""

import pytest
from typer.testing import CliRunner

import luts
from luts.verify import verify_lut
from orchestrator.cli.main import app
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.pool import export_many
from search.algorithms import Constraints, LutPrice, SearchSettings, search
from search.spaces import get_space
from search.spaces.plugins import VARIABLE
from tests.support.own_code import own_code_forgotten, write_own_code


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    path = write_own_code(folder)
    with own_code_forgotten(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(path))
        for name in ("RUNS", "LUTS", "CACHE"):
            patch.setenv(f"BLOCKTIME_{name}", str(folder / name))
        yield path


@pytest.fixture(scope="module")
def lut(own_file):
    """Of the space, on a simulated device: a process of its own that must know the blocks too."""
    command = "profile --device simulated --space own-se --design 10 --heldout 4 --removals none --budget 1s"
    done = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return luts.load("own-se")


def test_the_lut_has_an_entry_for_every_own_block_and_verifies(lut):
    keys = {block.key for block in get_space("own-se").block_specs()}
    assert {entry.key for entry in lut.entries} == keys
    assert any(key.startswith("own.se(") for key in keys)
    verify_lut(luts.list()[0].path)


class Squeezed:
    """Accuracy grows with the channels of squeezes: an objective that no supernet gives."""

    fingerprint = "a" * 64

    def accuracies(self, archs):
        return [sum(getattr(block, "squeezed", 0) for block in arch.blocks()) / 100 for arch in archs]


def test_the_best_network_within_a_latency_is_that_of_an_exhaustive_search(lut):
    space, budget_ms = get_space("own-se"), lut.meta.reference_ms
    settings = SearchSettings(population=20, generations=6, skeletons=200)
    price = LutPrice(lut.latency_model, "b" * 64)
    result = search(space, price, Squeezed(), Constraints(latency_ms=budget_ms, cautious=False), settings)
    winner = result.winner.architecture()
    within = [arch for arch in space if lut.predict(arch).ms <= budget_ms]
    assert 10 < len(within) < space.size()
    assert winner in within
    assert result.winner.accuracy == max(Squeezed().accuracies(within))


def test_its_networks_are_exported_by_workers_and_again_when_the_file_has_changed(own_file, tmp_path):
    arch = next(iter(get_space("own-se")))
    cache = ArtifactCache(tmp_path)
    (artifact,) = export_many([ExportSpec(arch.keys())], workers=1, cache=cache)
    assert artifact.path.stat().st_size > 0
    assert cache.get(ExportSpec(arch.keys())) is not None
    text = own_file.read_text(encoding="utf-8")
    own_file.write_text(text.replace(".sigmoid()", ".tanh()"), encoding="utf-8")
    assert cache.get(ExportSpec(arch.keys())) is None
    (changed,) = export_many([ExportSpec(arch.keys())], workers=1, cache=cache)
    own_file.write_text(text, encoding="utf-8")
    assert changed.sha256 != artifact.sha256


def test_models_of_the_packages_blocks_are_the_same_with_own_code_and_without(own_file):
    assert get_space("own-se")
    keys = ("conv(in=3,out=16,k=3,s=2)@64",)
    with_own = ExportSpec(keys).cache_key
    with own_code_forgotten():
        assert ExportSpec(keys).cache_key == with_own
