"""tools/builds.sh: what is built once, kept until its successor is whole, and built by one at a time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

BUILDS = Path(__file__).parents[2] / "tools/builds.sh"


class Build:
    """A build of `product` in `folder` that leaves a line in `log` each time it works."""

    def __init__(self, folder: Path) -> None:
        self.product = folder / "product"
        self.log = folder / "log"
        self._folder = folder

    def start(self, inputs: str, command: str) -> subprocess.Popen[str]:
        script = f"""
            . {BUILDS}
            make() {{ echo begun >>{self.log}; {command}; }}
            locked {self._folder}
            once {self.product} "{inputs}" make
        """
        return subprocess.Popen(["bash", "-c", script], stderr=subprocess.PIPE, text=True)

    def run(self, inputs: str, command: str = 'echo made >"$1"') -> int:
        process = self.start(inputs, command)
        process.communicate(timeout=300)
        return process.returncode

    @property
    def times(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_the_same_inputs_are_built_once(build: Build) -> None:
    assert [build.run("a"), build.run("a")] == [0, 0]
    assert (build.times, build.product.read_text()) == (1, "made\n")
    assert build.run("b") == 0
    assert build.times == 2
    build.product.unlink()
    assert build.run("b") == 0
    assert (build.times, build.product.read_text()) == (3, "made\n")


@pytest.mark.parametrize("command", ['echo half >"$1"; false', 'echo half >"$1"; kill -9 $$'])
def test_interrupted_build_leaves_the_old_one_and_is_repeated(build: Build, command: str) -> None:
    assert build.run("a") == 0
    assert build.run("b", command) != 0
    assert build.product.read_text() == "made\n"
    assert build.run("b", 'echo new >"$1"') == 0
    assert (build.times, build.product.read_text()) == (3, "new\n")
    assert build.run("a", 'echo old >"$1"') == 0
    assert build.product.read_text() == "old\n"


def test_a_folder_takes_the_place_of_the_last_one(build: Build) -> None:
    for name in ("first", "second"):
        assert build.run(name, f'mkdir "$1"; touch "$1/{name}"') == 0
        assert [path.name for path in build.product.iterdir()] == [name]


def test_of_two_builds_at_once_the_second_finds_the_work_done(build: Build) -> None:
    slow = 'sleep 0.3; echo made >"$1"'
    processes = [build.start("a", slow) for _ in range(2)]
    assert [process.communicate(timeout=300) and process.returncode for process in processes] == [0, 0]
    assert build.times == 1


def test_a_digest_knows_names_and_contents_and_not_the_place(tmp_path: Path) -> None:
    def digest(clone: Path) -> str:
        (clone / "tools").mkdir(exist_ok=True)
        (clone / "tools/builds.sh").write_text(BUILDS.read_text())
        command = f". {clone}/tools/builds.sh; digest sources"
        return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout

    for clone, name, text in (
        ("one", "a", "1"),
        ("two", "a", "1"),
        ("other", "a", "2"),
        ("renamed", "b", "1"),
    ):
        (tmp_path / clone / "sources").mkdir(parents=True)
        (tmp_path / clone / "sources" / name).write_text(text)
    one, two, other, renamed = (digest(tmp_path / clone) for clone in ("one", "two", "other", "renamed"))
    assert one == two
    assert len({one, other, renamed}) == 3
