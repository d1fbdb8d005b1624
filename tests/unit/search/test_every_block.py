"""Every registered kind of block, and the file that docs/blocks.md shows."""

import random
import re
import sys
from pathlib import Path
from unittest import mock

import pytest

from luts.format.errors import UsageError
from search.blocks import kinds, parse_key, registry
from search.spaces import get_space, list_spaces
from search.spaces.plugins import load_plugin
from search.supernet.model.supernet import Supernet
from tests.support.block_checks import check_kind
from tests.support.own_code import own_code_forgotten

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "blocks.md"
SHOWN = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_key_costs_and_module_agree(kind):
    check_kind(KINDS[kind])


def test_every_kind_of_a_space_is_registered():
    assert {block.kind for space in list_spaces() for block in space.block_specs()} <= set(KINDS)


def test_a_space_with_a_kind_that_is_not_elastic_has_no_supernet():
    refusal = pytest.raises(UsageError, match=r"autovit-nano has no supernet: mvit\.shell is not elastic")
    with mock.patch.object(KINDS["mvit.shell"], "elastic", False), refusal:
        Supernet(get_space("autovit-nano"))


def test_a_kind_is_registered_once():
    with pytest.raises(UsageError, match="twice"):
        registry.register(KINDS["conv"])


def test_the_file_of_the_documentation(tmp_path):
    """Its block is a block like any other, its space has a supernet."""
    path = tmp_path / "own_squeeze.py"
    path.write_text("\n".join(SHOWN), encoding="utf-8")
    with own_code_forgotten():
        load_plugin(str(path))
        check_kind(kinds()["se"])
        block = parse_key("se(c=8,r=4)@4")
        assert block.key == "se(c=8,r=4)@4"
        assert block.params() == (8 * 2 + 2) + (2 * 8 + 8)
        space = get_space("squeezed-nano")
        supernet = Supernet(space)
        arch = space.sample(random.Random(0))
        assert "se(" in " ".join(arch.keys())
        assert sum(p.numel() for p in supernet.extract(arch).parameters()) == arch.params()


def test_files_of_blocks_register_by_lying_there():
    modules = {kind.__module__ for kind in KINDS.values() if kind.__module__.startswith("search.blocks.")}
    files = {Path(sys.modules[name].__file__).name for name in modules}
    folder = Path(registry.__file__).parent
    assert files == {
        file.name for file in folder.glob("*.py") if "@register" in file.read_text(encoding="utf-8")
    }
