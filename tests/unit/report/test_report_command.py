"""`bench report`."""

import pytest
import typer
from report_world import make_lut, write_run
from typer.testing import CliRunner

from luts.errors import UsageError
from orchestrator.cli import report


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs the command in an empty folder; the store of `write_run` is the user's."""
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.callback()(lambda: None)
    report.register(app)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False).stdout.strip()

    return run


def test_a_run_gets_its_report_beside_it(tmp_path, bench) -> None:
    write_run(tmp_path)
    assert bench("--run", "run") == "run/report.html"
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!doctype html>")


def test_a_lut_gets_its_report_here_under_its_name(tmp_path, bench) -> None:
    write_run(tmp_path, make_lut())
    name = "report-phone-autovit-nano-executorch-xnnpack-fp32-t2-v1.html"
    assert bench("--lut", "phone") == name
    assert (tmp_path / name).is_file()


def test_the_output_can_be_named_and_opened(tmp_path, bench, monkeypatch) -> None:
    write_run(tmp_path)
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or True)
    assert bench("--run", "run", "-o", "new/page.html", "--open") == "new/page.html"
    assert opened == [(tmp_path / "new" / "page.html").as_uri()]


@pytest.mark.parametrize("arguments", [(), ("--run", "run", "--lut", "phone")])
def test_exactly_one_source(tmp_path, bench, arguments) -> None:
    write_run(tmp_path)
    with pytest.raises(UsageError, match="give either --lut LUT or --run FOLDER"):
        bench(*arguments)
