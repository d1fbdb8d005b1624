"""Hosted checks, as far as can be told without hosts: what they run exists, and nothing in them moves by itself."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from orchestrator.cli.main import app, load_command

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / ".ci").iterdir())

PINNED = re.compile(r"uses: [\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
COMMAND = re.compile(r"\.venv/bin/bench ((?:[^\n\\]|\\\n)*)")


def jobs(path: Path) -> list[dict]:
    return list(yaml.safe_load(path.read_text())["jobs"].values())


def runs(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path) for step in job["steps"] if "run" in step]


def test_all_three_systems_have_one():
    assert [path.stem for path in WORKFLOWS] == ["android", "linux", "macos"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_commit_and_version(path):
    uses = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_names_its_system_may_only_read_and_ends(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for job in jobs(path):
        assert not job["runs-on"].endswith("-latest")
        assert job["timeout-minutes"] <= 90


def test_gradle_is_the_version_that_the_app_is_built_with():
    wrapper = (ROOT / "android_bench/gradle/wrapper/gradle-wrapper.properties").read_text()
    (setup,) = [
        step["with"]
        for job in jobs(WORKFLOWS[0])
        for step in job["steps"]
        if "gradle" in step.get("uses", "")
    ]
    assert f"/gradle-{setup['gradle-version']}-bin.zip\n" in wrapper


def test_swift_is_run_by_the_script_that_writes_what_the_package_includes():
    """Alone, `swift test` finds no agent_version.h in a fresh clone."""
    (mac,) = (path for path in WORKFLOWS if path.stem == "macos")
    assert "tools/build_swift.sh --test" in runs(mac)
    assert [text for path in WORKFLOWS for text in runs(path) if text.startswith("swift ")] == []


def test_scripts_that_they_run_are_there():
    named = [name for path in WORKFLOWS for name in re.findall(r"\.ci/\w+", path.read_text())]
    assert {ROOT / name for name in named} == set(SCRIPTS)
    assert all(script.stat().st_mode & 0o100 for script in SCRIPTS)


def test_bench_is_called_with_options_that_it_has():
    texts = [text for path in WORKFLOWS for text in runs(path)] + [path.read_text() for path in SCRIPTS]
    called = [
        shlex.split(command) for text in texts for command in COMMAND.findall(text.replace("\\\n", " "))
    ]
    assert {arguments[0] for arguments in called} == {"devices", "lut", "profile"}
    for arguments in called:
        context = typer.Context(typer.main.get_command(app))
        command = load_command(arguments.pop(0))
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_parser(context).parse_args(args=arguments)
