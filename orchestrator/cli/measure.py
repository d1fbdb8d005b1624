"""`bench measure`: latency of networks, of published suites, over minutes, and in several runtimes."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from luts.format.errors import BlocktimeError
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import (
    PICTURES,
    TABLES,
    JsonOption,
    OutputFilesOption,
    PictureFilesOption,
    emit_json,
    output_files,
    say,
    show,
    write_table,
)
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.runtimes import RuntimesCommand, measure_runtimes
from orchestrator.tasks.suite import SuiteCommand, run_suite
from orchestrator.tasks.sustained import SustainedCommand, measure_sustained

NETWORKS = (
    "bench measure autovit-xxs-paper timm:mobilenetv3_small_100 --device host",
    "bench measure efficientvit-m5 --device host --batch 1,8,32",
)


def register(app: typer.Typer) -> None:
    """Add `measure` and its modes."""
    app.command("measure", epilog=example(*NETWORKS))(with_options(measure_command))
    suite = app.command("measure suite", epilog=example("bench measure suite autovit-table2 --device host"))
    suite(with_options(suite_command))
    sustained = example("bench measure sustained autovit-xxs-paper --device pixel8 --duration 10m")
    app.command("measure sustained", epilog=sustained)(with_options(sustained_command))
    runtimes = example(
        "bench measure runtimes timm:mobilenetv3_small_100 --device host --runtime onnx,litert"
    )
    app.command("measure runtimes", epilog=runtimes)(with_options(runtimes_command))


def measure_command(
    options: MeasureCommand, output: OutputFilesOption = None, as_json: JsonOption = False
) -> None:
    """Measure the latency of networks, interleaved in one run; the first is the reference.

    `ms` is what an undisturbed device takes; p50, p90 and p99 are of single calls.
    """
    files = output_files(output, TABLES)
    with shown_progress() as progress:
        result = measure_networks(options, progress)
    _say_failures(result.failures)
    for file in files:
        write_table(file, result.to_dict(), "models")
    show(result, as_json)


def suite_command(
    options: SuiteCommand, output: PictureFilesOption = None, as_json: JsonOption = False
) -> None:
    """Measure published networks next to the figures of their papers."""
    files = output_files(output, (*PICTURES, ".json"))
    with shown_progress() as progress:
        result = run_suite(options, progress)
    pictures = [file for file in files if file.suffix in PICTURES]
    pictures = pictures or [result.folder / f"suite{suffix}" for suffix in PICTURES]
    from orchestrator.report.draw import write_figure
    from orchestrator.report.figures import suite_figure

    drawn = suite_figure(result.comparison, result.title, result.setup.simulated)
    for path in pictures:
        write_figure(path, drawn)
    for file in set(files) - set(pictures):
        write_table(file, result.to_dict())
    if as_json:
        emit_json(result.to_dict() | {"pictures": [str(path) for path in pictures]})
    else:
        show(result, False)
        for path in pictures:
            say(f"picture: {path}")
    if failure := result.comparison.failure:
        raise BlocktimeError(failure, code="networks_not_measured")


def sustained_command(
    options: SustainedCommand, output: PictureFilesOption = None, as_json: JsonOption = False
) -> None:
    """Run one network without a pause: latency against time, heat and clock."""
    files = output_files(output, (*TABLES, *PICTURES))
    with shown_progress() as progress:
        result = measure_sustained(options, progress)
    pictures = [file for file in files if file.suffix in PICTURES]
    pictures = pictures or [result.folder / f"sustained{suffix}" for suffix in PICTURES]
    from orchestrator.report.draw import write_figure
    from orchestrator.report.figures import sustained_figure

    drawn = sustained_figure(result.points, result.slowdown, result.title)
    for path in pictures:
        write_figure(path, drawn)
    for file in set(files) - set(pictures):
        write_table(file, result.to_dict(), "points")
    if as_json:
        emit_json(result.to_dict() | {"pictures": [str(path) for path in pictures]})
        return
    show(result, False)
    for path in pictures:
        say(f"picture: {path}")


def runtimes_command(
    options: RuntimesCommand, output: OutputFilesOption = None, as_json: JsonOption = False
) -> None:
    """Measure networks in ExecuTorch and in ONNX Runtime or LiteRT on this machine, and compare their outputs."""
    files = output_files(output, TABLES)
    with shown_progress() as progress:
        result = measure_runtimes(options, progress)
    _say_failures(result.failures)
    for file in files:
        write_table(file, result.to_dict(), "models")
    show(result, as_json)


def _say_failures(failures: Mapping[str, str]) -> None:
    for name, reason in failures.items():
        say(f"{name} is left out: {reason}")
