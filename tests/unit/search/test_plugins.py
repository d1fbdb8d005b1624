"""Code of a user's own: imported from a file, a module, a package's entry point, and again in worker processes."""

import importlib
import importlib.metadata
import os
import sys

import pytest

from search.algorithms.evaluation import ProcessPool
from search.blocks import kinds, parse_key
from search.networks import build_network, module_of
from search.spaces import get_arch, get_space, list_spaces, plugins
from search.spaces.plugins import PickleWithPlugins, load_entry_points, load_plugin, loaded_plugins
from tests.support.block_checks import check_kind
from tests.support.errors import raises
from tests.support.own_code import BLOCK, OPENER, SPACES, own_code_forgotten, write_own_code


@pytest.fixture(autouse=True)
def no_plugins():
    with own_code_forgotten():
        yield


def test_plugin_file_adds_a_block_and_a_space(tmp_path, monkeypatch):
    path = write_own_code(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_plugin("own_blocks.py")
    assert loaded_plugins() == (str(path),)
    assert os.environ[plugins.VARIABLE] == str(path)
    check_kind(kinds()["own.se"])
    space = get_space("own-se")
    arch = space.from_document(
        {"stages": {"stem": {"width": 8}, "body": {"width": 16, "depth": 2, "reduction": 4}}}
    )
    assert arch.keys()[2:] == ("own.se(c=16,r=4)@8",) * 2 + ("head.fc(in=16,classes=10)@8",)
    network = build_network(arch.blocks())
    assert sum(p.numel() for p in network.parameters()) == arch.params()
    load_plugin(str(path))
    assert loaded_plugins() == (str(path),)


def test_module_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    write_own_code(tmp_path / "own_package")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugin("own_package.own_blocks")
    assert parse_key("own.se(c=8,r=4)@7").kind == "own.se"
    assert {path.name for path in plugins.plugin_files()} == {"__init__.py", "own_blocks.py"}


@pytest.mark.parametrize(
    "text", ["missing.py", "no/such/file.py", "no_such_module", "no.such.module", "own_blocks"]
)
def test_module_that_cannot_be_imported_is_refused(text, tmp_path, monkeypatch):
    path = write_own_code(tmp_path, "\n", "raise RuntimeError('no such luck\\nat all')\n")
    monkeypatch.chdir(path.parent / ".." if text.endswith(".py") else path.parent)
    monkeypatch.syspath_prepend(tmp_path)
    with raises("plugin_import_failed") as refused:
        load_plugin(text)
    assert "\n" not in str(refused.value)
    assert plugins.VARIABLE not in os.environ


def test_registries_import_plugins_of_the_environment(tmp_path, monkeypatch):
    path = write_own_code(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, str(path))
    assert "own-se" in [space.name for space in list_spaces()]
    assert loaded_plugins() == (str(path),)


def test_entry_point_of_a_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    write_own_code(tmp_path)
    entry = importlib.metadata.EntryPoint("own", "own_blocks", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == entry.group else [])
    load_entry_points()
    assert get_space("own-se").name == "own-se"
    assert loaded_plugins() == ("own_blocks",)


def test_imported_module_is_not_imported_again(tmp_path, monkeypatch):
    path = write_own_code(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_blocks")
    load_plugin(str(path))
    assert kinds()["own.se"] is module.SqueezeExcite


def test_plugin_may_use_registries_while_imported(tmp_path, monkeypatch):
    look_ups = (
        "from search.spaces import get_arch, get_space\n\nget_arch('mobilevit-s')\nget_space('mobilevit')\n"
    )
    path = write_own_code(tmp_path, look_ups, BLOCK, SPACES)
    monkeypatch.setenv(plugins.VARIABLE, str(path))
    assert get_space("own-se").size() == 144


@pytest.mark.parametrize(
    ("parts", "says", "code"),
    [
        (
            ["import no_such_module\n"],
            "ModuleNotFoundError: No module named 'no_such_module' (line 1)",
            "plugin_import_failed",
        ),
        (["x = 1\n", "def f(:\n"], "(own_blocks.py, line 2)", "plugin_import_failed"),
        (["raise SystemExit('not here')\n"], "SystemExit: not here (line 1)", "plugin_import_failed"),
        ([BLOCK, BLOCK], "own.se", "name_taken"),
        ([BLOCK, SPACES, "register_space(SPACE)\n"], "own-se", "name_taken"),
        ([BLOCK, SPACES, SPACES], "own.se", "name_taken"),
        ([BLOCK.replace("own.se", "mbconv")], "search.blocks.mobilenet.MBConv", "name_taken"),
        (
            [BLOCK.replace('"own.se(c=8,r=4)@7", "own.se(c=16,r=4)@8"', "")],
            "examples",
            "incomplete_block_kind",
        ),
        (
            [BLOCK.replace('"own.se(c=8,r=4)@7"', '"conv(in=3,out=8,k=3,s=2)@8"')],
            "another kind",
            "wrong_block_example",
        ),
        ([BLOCK.replace("own.se(c=8,r=4)", "own.se(c=8)")], "lacks r", "wrong_block_example"),
        ([BLOCK.replace("def ops", "def operations")], "ops", "incomplete_block_kind"),
        ([BLOCK.replace('"own.se"', '"Own SE"')], "a-z", "incomplete_block_kind"),
        ([BLOCK, SPACES.replace('"conv"', '"konv"')], "konv", "unknown_stage_kind"),
    ],
)
def test_broken_plugin_is_refused_with_the_cause(tmp_path, parts, says, code):
    path = write_own_code(tmp_path, *parts)
    with raises(code) as refused:
        load_plugin(str(path))
    assert str(refused.value).startswith(f"{path} cannot be imported: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert loaded_plugins() == ()
    assert not [name for name in sys.modules if name.startswith("own_blocks")]


def test_every_look_up_reports_a_broken_plugin(tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, str(write_own_code(tmp_path, "1 / 0\n")))
    for look_up in (list_spaces, lambda: get_space("autovit-nano"), lambda: get_arch("mobilevit-s")):
        with raises("plugin_import_failed"):
            look_up()


def test_block_without_a_module_is_refused(tmp_path):
    load_plugin(str(write_own_code(tmp_path, BLOCK)))
    block = parse_key("own.se(c=8,r=4)@7")
    with raises("block_without_module"):
        module_of(block)
    pickled = PickleWithPlugins.of(block)
    assert (pickled.plugins, pickled.value()) == (loaded_plugins(), block)


def test_worker_of_a_search_imports_the_plugin(tmp_path):
    """Its opener and its blocks are classes of the user's file, which nothing else in the worker imports."""
    path = write_own_code(tmp_path, BLOCK, SPACES, OPENER)
    load_plugin(str(path))
    (module,) = plugins._loaded.values()
    archs = list(get_space("own-se"))[:3]
    with ProcessPool(module.Opener(), module.Opener().fingerprint, 1) as pool:
        accuracies = dict(pool.stream(archs))
    assert accuracies == {arch: module.Opener().accuracy(arch) for arch in archs}
    assert max(accuracies.values()) > 0
    path.write_text("import no_such_module\n", encoding="utf-8")
    with (
        ProcessPool(module.Opener(), module.Opener().fingerprint, 1) as pool,
        raises("plugin_import_failed"),
    ):
        list(pool.stream(archs[:1]))
