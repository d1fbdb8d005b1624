"""`bench report`."""

from unittest import mock

import pytest
from typer.testing import CliRunner

from luts.format.errors import UsageError
from orchestrator.cli.main import app
from tests.support.report_world import make_lut, write_run


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs the command in an empty folder; the store of `write_run` is the user's."""
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False).stdout.strip()

    return run


def test_a_run_gets_its_report_next_to_it(tmp_path, bench) -> None:
    write_run(tmp_path)
    assert bench("--run", "run") == "run/report.html"
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!doctype html>")


def test_a_lut_gets_its_report_here_under_its_name(tmp_path, bench) -> None:
    write_run(tmp_path, make_lut())
    name = "report-phone-autovit-nano-executorch-xnnpack-fp32-t2-v1.html"
    assert bench("--lut", "phone") == name
    assert (tmp_path / name).is_file()


def test_a_lut_of_the_package_gets_its_report(tmp_path, bench) -> None:
    page = bench("--lut", "linux-x86-64/autovit-nano/executorch-xnnpack-int8-t1")
    assert "linux-x86-64" in (tmp_path / page).read_text(encoding="utf-8")


def test_the_output_can_be_named_and_opened(tmp_path, bench, monkeypatch) -> None:
    write_run(tmp_path)
    opener = mock.Mock(return_value=True)
    monkeypatch.setattr("webbrowser.open", opener)
    assert bench("--run", "run", "-o", "new/page.html", "--open") == "new/page.html"
    opener.assert_called_once_with((tmp_path / "new" / "page.html").as_uri())


@pytest.mark.parametrize("arguments", [(), ("--run", "run", "--lut", "phone")])
def test_exactly_one_source(tmp_path, bench, arguments) -> None:
    write_run(tmp_path)
    with pytest.raises(UsageError, match="give either --lut LUT or --run FOLDER"):
        bench(*arguments)
