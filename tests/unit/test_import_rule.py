"""luts <- search <- orchestrator: nothing imports what stands above it, and pure code needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {"luts": {"luts"}, "search": {"luts", "search"}, "orchestrator": {"luts", "search", "orchestrator"}}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_stands_below_them(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    foreign = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path)
        if name in ALLOWED and name not in ALLOWED[package]
    }
    assert not foreign


@pytest.mark.parametrize(
    "modules",
    [
        "luts.build, luts.store, luts.verify",
        "search.spaces, search.blocks, search.algorithms",
        "orchestrator.measure.plan",
        "orchestrator.simulate.noise, orchestrator.simulate.truth, orchestrator.simulate.__main__",
    ],
)
def test_pure_code_does_not_load_torch(modules):
    code = f"import {modules}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_command_line_starts_without_what_only_some_commands_need():
    heavy = "torch", "scipy", "sklearn", "matplotlib", "requests"
    code = (
        f"import orchestrator.cli.main, sys; assert not sys.modules.keys() & set({heavy}), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_agent_starts_without_the_exporter():
    code = (
        "import orchestrator.agent.host, sys; assert 'torch' not in sys.modules; "
        "import orchestrator.agent.binding; assert 'executorch.exir' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
