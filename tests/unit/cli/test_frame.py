"""The frame of the command line: help of every command, version, completion."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from luts.format.errors import UsageError
from luts.format.provenance import package_version
from luts.format.table import Column, Facts, Table
from orchestrator.cli import commands
from orchestrator.cli.main import app, load_command, run
from orchestrator.cli.output import show
from tests.support.bench import module_environment
from tests.support.own_code import own_code_forgotten, write_own_code


def walk(name):
    """A command or group, and every command of a group, with its words."""
    command = load_command(name)
    return {(name,): command} | {
        (name, inner): each for inner, each in getattr(command, "commands", {}).items()
    }


COMMANDS = {path: command for name in commands.COMMANDS for path, command in walk(name).items()}


def shown(*words):
    reported = CliRunner().invoke(app, words, env={"COLUMNS": "300"}, prog_name="bench")
    assert reported.exit_code == 0, reported.output
    return reported.output


def bare(text):
    """Without what tables and line breaks put between words."""
    return "".join(text.replace("│", "").split())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_tells_all_of_every_command_and_group(path):
    printed = bare(shown(*path, "--help"))
    for parameter in COMMANDS[path].params:
        if getattr(parameter, "hidden", False):
            continue
        assert all(name in printed for name in parameter.opts if name.startswith("-"))
        help_text = (getattr(parameter, "help", None) or "").replace(r"\[", "[")
        assert bare(help_text) in printed, parameter.name
    assert "--debug" in printed or hasattr(COMMANDS[path], "commands")


def test_bench_help_fits_80_columns_and_names_every_command():
    lines = shown("--help").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 58
    for name, *_ in COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines), name


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_bench_starts_without_what_commands_import(option):
    code = (
        f"import sys; sys.argv = ['bench', '{option}']\n"
        "from orchestrator.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "allowed = {'main', 'entry', 'commands'}\n"
        "prefix = 'orchestrator.cli.'\n"
        "loaded = {name.removeprefix(prefix) for name in sys.modules if name.startswith(prefix)}\n"
        "assert loaded == allowed, loaded\n"
        "heavy = sys.modules.keys() & {'pydantic', 'numpy', 'rich', 'torch', 'orchestrator.tasks', 'search'}\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=module_environment()
    )
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_packages():
    assert shown("--version") == f"bench {package_version()}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_complete(shell, monkeypatch):
    words = {"COMP_WORDS": "bench spa", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "bench spa"}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    reported = CliRunner().invoke(
        app, [], env={"_BENCH_COMPLETE": f"complete_{shell}", **words}, prog_name="bench"
    )
    assert "space" in reported.stdout
    assert "profile" not in reported.stdout


def test_a_table_shows_brackets_as_they_are(capsys):
    table = Table("[a]", [Column("path", "[b]")], [{"path": "/tmp/[red]/[/x]"}])
    show([table, Facts("[c]", {"name": "[/d]"})], False)
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[a]", "[b]", "/tmp/[red]/[/x]", "[c]", "[/d]"))


@pytest.fixture
def bench(monkeypatch, capsys):
    """The whole command in this process: exit code, output, errors."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        return ended.value.code or 0, *capsys.readouterr()

    with own_code_forgotten():
        yield call


def spaces_of(reported):
    code, out, err = reported
    assert (code, err) == (0, "")
    return {row["space"] for row in json.loads(out)}


@pytest.mark.parametrize("first", [True, False])
def test_own_code_is_known_to_every_command(bench, tmp_path, first):
    imported = ("--import", write_own_code(tmp_path))
    command = ("space", "list", "--json")
    assert "own-se" in spaces_of(bench(*imported, *command) if first else bench(*command, *imported))


def test_several_files_are_imported(bench, tmp_path):
    (tmp_path / "empty.py").touch()
    own = write_own_code(tmp_path)
    assert "own-se" in spaces_of(
        bench("space", "list", f"--import={own}", "--json", "--import", tmp_path / "empty.py")
    )


def test_own_code_that_fails_is_named_in_one_line(bench, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    code, out, err = bench("space", "list", "--import", tmp_path / "broken.py")
    assert (code, out) == (2, "")
    assert err.startswith(f"bench: {tmp_path / 'broken.py'} cannot be imported")
    assert len(err.splitlines()) == 1


def test_a_traceback_where_it_is_asked_for(bench):
    for arguments in (("--debug", "space", "show", "nosuch"), ("space", "show", "nosuch", "--debug")):
        with pytest.raises(UsageError, match="nosuch"):
            bench(*arguments)
