"""`bench measure`: whole networks on a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from orchestrator.cli.eval import DataOption, OutsideOption
from orchestrator.cli.measured import show_measured
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    DeviceOption,
    Fp32Option,
    NetworksOption,
    PaceOption,
    ResolutionOption,
    SelfTestOption,
    TaskOptions,
    VariantOptions,
    WorkersOption,
    target_of,
    with_options,
)
from orchestrator.cli.output import JsonOption, emit_json, say, shown_progress
from orchestrator.cli.output_files import TABLES, output_files, write_table
from orchestrator.cli.runtimes import compare_runtimes
from orchestrator.cli.suite import measure_suite
from orchestrator.cli.sustained import measure_for_long
from orchestrator.tasks.batched import parse_batches
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.parsing import parse_budget, parse_pace
from orchestrator.tasks.runtimes import parse_runtimes
from orchestrator.tasks.trained import Trained

_BUDGET = "2m"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("measure")(with_options(measure_command))


def measure_command(
    device: DeviceOption,
    *,
    model: NetworksOption = None,
    artifact: Annotated[
        list[Path] | None, typer.Option(help="A .pte file or an .mlpackage; repeatable.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Published networks side by side: autovit-table2.")
    ] = None,
    sustained: Annotated[
        str | None,
        typer.Option(
            help="One network without a pause for so long (10m): latency against time, heat and clock."
        ),
    ] = None,
    task: TaskOptions,
    resolution: ResolutionOption = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Images of a call, such as 1,8,32: images a second at each size; 1 without it."),
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(help="Folder of a trained supernet to inherit weights from; random ones without it."),
    ] = None,
    data: DataOption = None,
    outside: OutsideOption = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the figures into a .json or .csv (of a suite a .json), pictures of suites and sustained "
            "runs into a .png or .svg; repeatable.",
        ),
    ] = None,
    variant: VariantOptions,
    fp32: Fp32Option = None,
    budget: BudgetOption = _BUDGET,
    seed: Annotated[int, typer.Option(help="Of the schedule.")] = 0,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    pace: PaceOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Latency of whole networks with intervals, all interleaved in one measurement; the first is the reference.

    `ms` is what a quiet device takes; p50, p90 and p99 are of single calls as they ran. With --runtime onnx, litert
    or both (onnx,litert) every network is measured in ExecuTorch and in those, and their outputs are compared.
    """
    target, budget_s = target_of(device, variant, access), parse_budget(budget)
    networks = task.of(model)
    batches = parse_batches(batch)
    if batch is not None and (suite or sustained or parse_runtimes(variant.runtime)):
        raise UsageError(
            "--batch goes with networks in one runtime; leave --suite, --sustained and others out"
        )
    if runtimes := parse_runtimes(variant.runtime):
        if artifact or suite or sustained or supernet or data or outside or pace:
            raise UsageError(f"--runtime {variant.runtime} compares networks; give --model (or --arch) alone")
        compare_runtimes(
            networks,
            replace(target, runtime="executorch"),
            runtimes,
            output or (),
            as_json,
            resolution=resolution,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            workers=workers,
        )
        return
    if pace is not None and (suite is not None or sustained is not None):
        raise UsageError("--suite and --sustained run back to back; leave --pace out")
    if suite is not None:
        if networks or artifact or resolution or sustained or supernet:
            raise UsageError("--suite says which networks at which resolution; leave the other options out")
        measure_suite(
            suite,
            target,
            output or (),
            as_json,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            workers=workers,
        )
        return
    if sustained is not None:
        _refuse_for_sustained(budget, seed, self_test)
        if supernet:
            raise UsageError("--sustained runs random weights, which take as long; leave --supernet out")
        measure_for_long(
            networks,
            target,
            artifact or (),
            output or (),
            as_json,
            resolution=resolution,
            duration_s=parse_budget(sustained, "--sustained"),
            workers=workers,
        )
        return
    if fp32 and not model and supernet is None:
        raise UsageError("--fp32 says how networks are exported; a file is what it is")
    if (data or outside) and supernet is None:
        raise UsageError("--data and --outside go with a supernet; add --supernet")
    files = output_files(output, TABLES)
    if not networks and not artifact and supernet is None:
        raise UsageError("nothing to measure; give --model (or --arch) or --artifact, or a --suite")
    with shown_progress() as progress:
        measured = measure_networks(
            networks,
            target,
            files=artifact or (),
            resolution=resolution,
            trained=Trained(None, supernet, data, outside),
            batches=batches,
            fp32=fp32 or (),
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            pace_us=parse_pace(pace),
            workers=workers,
            progress=progress,
        )
    for name, reason in measured.failures.items():
        say(f"{name} is left out, it can't be measured: {reason}")
    for file in files:
        write_table(file, measured.to_dict(), "models")
    if as_json:
        emit_json(measured.to_dict())
    else:
        show_measured(device, measured)


def _refuse_for_sustained(budget: str, seed: int, self_test: bool) -> None:
    """UsageError for options that a run of one network without a pause has no use for."""
    given = {"--budget": budget != _BUDGET, "--seed": seed != 0, "--no-self-test": not self_test}
    if names := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"--sustained runs one network for as long as it says, in no schedule; leave {', '.join(names)} out"
        )
