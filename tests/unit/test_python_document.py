"""docs/python.md: its blocks of code run in order, as in one notebook."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from tests.support.own_code import own_code_forgotten

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def test_its_code_runs(tmp_path, monkeypatch) -> None:
    for name in ("RUNS", "LUTS", "CACHE"):
        monkeypatch.setenv(f"BLOCKTIME_{name}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    scope: dict[str, object] = {"__name__": "notebook"}
    with own_code_forgotten():
        for number, block in enumerate(BLOCKS):
            if file := re.match(r"# (\w+\.py)\n", block):
                Path(file[1]).write_text(block, encoding="utf-8")
            else:
                exec(compile(block, f"{DOCUMENT.name}, block {number}", "exec"), scope)


def test_the_notebook_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plot_lut.py"])
    mpl.use("agg")
    runpy.run_path(str(DOCUMENT.parent / "examples" / "plot_lut.py"))
    assert plt.imread("lut.png").shape[1] > 1000


@pytest.mark.parametrize("package", ["luts", "search", "orchestrator"])
def test_a_package_offers_what_it_lists(package) -> None:
    module = __import__(package)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    assert {name for name in module.__all__ if not hasattr(module, name)} == set()
    assert set(module.__all__) <= set(dir(sys.modules[package]))
