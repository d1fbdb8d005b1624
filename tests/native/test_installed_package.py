"""The package as its users install it: a wheel in an environment of its own, outside of any checkout, offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from orchestrator.agent.native import Shim

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("luts", "search", "orchestrator", "docs", "native", "pyproject.toml", "README.md", "LICENSE")


class Installed:
    """`bench` of the wheel; its environment sees the packages of this one, and none of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sources = folder / "sources"
        sources.mkdir()
        for name in PARTS:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, sources / name)
        self._pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder / "wheel", sources)
        shutil.rmtree(sources)
        venv.create(folder / "environment", symlinks=True)
        python = folder / "environment/bin/python"
        self._pip("--python", python, "install", "--no-deps", "--no-index", *(folder / "wheel").glob("*.whl"))
        (packages,) = (folder / "environment/lib").glob("python*/site-packages")
        # a line of a .pth file is added to the path, without the .pth files there: not the editable checkout
        (packages / "tests.pth").write_text(sysconfig.get_path("purelib"))
        self.data = folder / "data"

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        unset = ("PYTHONPATH", "BLOCKTIME_AGENTS")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        return subprocess.run(
            [self.folder / "environment/bin/bench", *arguments],
            env=environment | {"XDG_DATA_HOME": str(self.data)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def missing(self) -> dict[str, str]:
        """What `bench doctor` advises, by what is missing."""
        rows = json.loads(self.bench("doctor", "--json").stdout)
        return {row["name"]: row["next_step"] for row in rows if row["found"] == "missing"}

    @staticmethod
    def _pip(*arguments: object) -> None:
        command = [sys.executable, "-m", "pip", "--quiet", *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


def test_a_message_names_a_document_that_is_there(installed) -> None:
    (installed.folder / "mine.json").write_text('{"name": 5}')
    output = installed.bench("profile", "--device", "simulated:mine.json", "--space", "autovit-nano").stderr
    document = Path(output.strip().rpartition("see ")[2])
    assert document.read_text(encoding="utf-8") == (ROOT / "docs/lut.md").read_text(encoding="utf-8")
    assert document.is_relative_to(installed.folder / "environment")


@pytest.mark.slow
def test_native_calls_are_built_by_the_command_that_it_advises(installed, native) -> None:
    before = installed.missing()
    assert before["native calls"].endswith("run `bench doctor native`")
    assert before["kotlin agent"] == (
        "run `make agents` in a clone of blocktime and set BLOCKTIME_AGENTS to its folder `build`"
    )
    built = installed.bench("doctor", "native")
    assert built.returncode == 0, built.stderr
    library = installed.data / "blocktime/agents/native/libetshim.so"
    assert built.stdout.strip() == str(library)
    assert "native calls" not in installed.missing()
    # the agent's version holds this digest: the same sources, measured by LUTs of both, are the same agent
    assert Shim(library).version == Shim(native / "libetshim.so").version


def test_without_a_compiler_one_line_says_so(installed, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(installed.folder / "environment/bin"))
    refused = installed.bench("doctor", "native")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "bench: g++ is not installed; install it (Debian and Ubuntu: apt-get install g++)"
    )
