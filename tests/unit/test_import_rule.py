"""luts <- search <- orchestrator, rooms in one order, no circles; and pure code needs no torch."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "luts", "search", "orchestrator"

ROOMS = (
    "luts/format",
    "luts/estimate",
    "luts",
    "luts/share",
    "search/blocks",
    "search/networks",
    "search/spaces",
    "search/supernet/recipe",
    "search/supernet/data",
    "search/supernet/model",
    "search/supernet/train",
    "search/supernet",
    "search/dense",
    "search/dense/data",
    "search/dense/loss",
    "search/dense/score",
    "search/dense/train",
    "search/algorithms",
    "search",
    "orchestrator/wire",
    "orchestrator/agent",
    "orchestrator/export/artifacts",
    "orchestrator/export/lower",
    "orchestrator/export/reuse",
    "orchestrator/export",
    "orchestrator/accuracy",
    "orchestrator/plan",
    "orchestrator/bundle",
    "orchestrator/journal",
    "orchestrator/simulate",
    "orchestrator/devices/common",
    "orchestrator/devices/android",
    "orchestrator/devices/iphone",
    "orchestrator/devices",
    "orchestrator/measure",
    "orchestrator/fleet",
    "orchestrator/breakdown",
    "orchestrator/suites",
    "orchestrator/winner",
    "orchestrator/report",
    "orchestrator/tasks",
    "orchestrator/cli",
    "orchestrator",
)
"""Folders from the bottom up, those inside of one before it: each imports only itself and what stands before it."""

CLI_DOORS = {"orchestrator.cli.main", "orchestrator.cli.entry"}
"""What a test may take to run commands: the application, and the exit code of an error."""


def files(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(path):
    return "/".join(path.relative_to(ROOT).parent.parts[:3])


def imported(path):
    """Names of modules and of what is taken from them, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imports():
    """Each file of the packages with those that it imports."""
    modules = {module_name(path): path for package in PACKAGES for path in files(package)}
    graph = {}
    for path in modules.values():
        targets = (modules.get(name) or modules.get(name.rpartition(".")[0]) for name in imported(path))
        graph[path] = {target for target in targets if target not in (None, path)}
    return graph


def circle_of(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    assert [str(path.relative_to(ROOT)) for path in circle_of(imports())] == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_folders_form_no_circle(depth):
    """Also where those inside of a folder count as the folder."""
    graph = {}
    for path, targets in imports().items():
        of_file = "/".join(room(path).split("/")[:depth])
        of_targets = {"/".join(room(target).split("/")[:depth]) for target in targets}
        graph.setdefault(of_file, set()).update(of_targets - {of_file})
    assert circle_of(graph) == []


def test_rooms_import_only_what_stands_before_them():
    unknown = {room(path) for path in imports()} - set(ROOMS)
    assert not unknown, "a new folder needs its place in ROOMS"
    against = {
        f"{path.relative_to(ROOT)} imports {target.relative_to(ROOT)}"
        for path, targets in imports().items()
        for target in targets
        if ROOMS.index(room(target)) > ROOMS.index(room(path))
    }
    assert not against


def cli_imports(folder, allowed=frozenset()):
    return {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(folder)
        for name in imported(path)
        if f"{name}.".startswith("orchestrator.cli.") and not {name, name.rpartition(".")[0]} & allowed
    }


def test_tools_use_tasks_instead_of_the_command_line():
    assert not cli_imports("tools")


def test_only_tests_of_the_command_line_look_inside_of_it():
    inside = {line for line in cli_imports("tests", CLI_DOORS) if not line.startswith("tests/unit/cli/")}
    assert not inside


@pytest.mark.parametrize(
    "modules",
    [
        "luts.build, luts.format.store, luts.verify",
        "search.spaces, search.blocks, search.algorithms",
        "orchestrator.plan.build",
        "orchestrator.simulate.device, orchestrator.simulate.__main__",
    ],
)
def test_pure_code_does_not_load_torch(modules):
    code = f"import {modules}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_agent_starts_without_the_exporter():
    code = (
        "import orchestrator.agent.host, sys; assert 'torch' not in sys.modules; "
        "import orchestrator.agent.binding; assert 'executorch.exir' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
