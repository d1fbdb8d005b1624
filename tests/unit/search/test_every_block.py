"""Every registered kind of block, and the one that docs/blocks.md shows how to add."""

import importlib.util
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from block_checks import check_kind

from luts.errors import UsageError
from search.blocks import kinds, parse_key, registry
from search.spaces import get_space, list_spaces
from search.supernet.supernet import Supernet

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "blocks.md"
SHOWN = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
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
    with pytest.raises(ValueError, match="twice"):
        registry.register(KINDS["conv"])


def test_the_block_of_the_documentation(tmp_path, monkeypatch):
    """Its file, imported as `search.blocks` would, is a block like any other."""
    monkeypatch.setattr(registry, "_KINDS", dict(KINDS))
    spec = importlib.util.spec_from_file_location("squeeze", tmp_path / "squeeze.py")
    (tmp_path / "squeeze.py").write_text(SHOWN[1], encoding="utf-8")
    monkeypatch.setitem(sys.modules, "squeeze", module := importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    check_kind(kinds()["se"])
    block = module.SqueezeExcite(4, 8, 4)
    assert block.key == "se(c=8,r=4)@4"
    assert block.params() == (8 * 2 + 2) + (2 * 8 + 8)
    assert parse_key("se(c=8,r=4)@4") == block


def test_files_of_blocks_register_by_lying_there():
    files = {Path(sys.modules[kind.__module__].__file__).name for kind in KINDS.values()}
    folder = Path(registry.__file__).parent
    assert files == {
        file.name for file in folder.glob("*.py") if "@register" in file.read_text(encoding="utf-8")
    }
