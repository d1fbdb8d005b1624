"""What the latency of networks is made of, by kind of operation."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.files import check_writable, write_json
from luts.format.table import Column, DrawnResult, Table
from orchestrator.breakdown.attribution import (
    METHOD_TITLES,
    WHOLE,
    Attribution,
    Method,
    MethodChoice,
    NetworkBreakdown,
    Roof,
    by_removal,
)
from orchestrator.devices.common.device import Device
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower import quiet
from orchestrator.export.lower.kinds import KINDS, PART_TITLES, TITLES, Kind
from orchestrator.journal.runs import find_run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import check_runtime, measure
from orchestrator.plan.plan import Policy
from orchestrator.tasks.models import export_possible, files_of
from orchestrator.tasks.networks import NetworkOptions, spec_of
from orchestrator.tasks.options import ScheduleOptions, network_option, output_option
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.tasks.target import Target, greet
from orchestrator.wire.client import ModelFile
from orchestrator.wire.messages import DeviceInfo, HelloReply

if TYPE_CHECKING:
    from orchestrator.export.lower.removal import Census


PICTURES = (".svg", ".png", ".pdf")


def parse_picture(text: str, flag: str) -> Path:
    """Return the path of a picture that can be written; raise UsageError or StorageError otherwise."""
    path = Path(text)
    if path.suffix not in PICTURES:
        raise UsageError(
            f"{flag} {text}: expected a name that ends in {' or '.join(PICTURES)}", code="output_suffix"
        )
    check_writable(path)
    return path


@dataclass(frozen=True, kw_only=True)
class BreakdownCommand(ScheduleOptions, NetworkOptions):
    """Attribute latency to kinds of operations: attention, MLP, convolution and so on.

    The time budget is for each network. A picture has a stacked bar for each network and method.
    """

    target: Target
    method: MethodChoice = network_option(
        "both", "ExecuTorch's event tracer, removal of each kind of operation, or both."
    )
    operators: Path | None = output_option(
        None,
        "Draw the parts of attention, and operators against the roofline, into a .svg, .png or .pdf.",
        parse=parse_picture,
        metavar="FILE",
    )


@dataclass(frozen=True)
class Breakdown(DrawnResult):
    """Latency of networks by kind of operation, on a device; `target` is its name as the user gave it."""

    target: str
    device: DeviceInfo
    variant: Variant
    networks: tuple[NetworkBreakdown, ...]

    @property
    def title(self) -> str:
        """Device and variant; a device that calls itself simulated is marked so."""
        mark = ", SIMULATED" if self.device.simulated else ""
        return f"{self.target}, {self.variant.name}{mark}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document, in milliseconds."""
        return {
            "device": self.device.model_dump(),
            "variant": self.variant.name,
            "simulated": self.device.simulated,
            "networks": [network.to_dict() for network in self.networks],
        }

    def report(self) -> Iterator[Table | str]:
        """Yield the tables of each network."""
        for network in self.networks:
            yield from _network_report(network, self.title)

    def draw(self) -> Any:
        """Draw a stacked bar for each network and method."""
        from orchestrator.report.figures import breakdown_figure

        return breakdown_figure(self.networks, self.title)


def break_down(options: BreakdownCommand, progress: Progress = silent) -> Breakdown:
    """Attribute the latency of networks to kinds of operations: attention, MLP, convolution and so on.

    Removals are also written to `breakdown.json` in the run's folder, and resume after an interruption.

    Raises:
        UsageError: no network, a simulated device, an unknown network or variant, or no tracer for `tracer`.
        InvalidArtifactError: the device can't run a network.
        BlocktimeError: as `measure_networks`.
    """
    target = options.target
    if not options.networks:
        raise UsageError("nothing to break down; name a network", code="no_network")
    if options.operators and options.method == "removal":
        raise UsageError("--operators needs the event tracer; leave --method out", code="no_tracer")
    if target.variant.is_simulated:
        raise UsageError(
            "a simulated device has no operations to break down; use a real device", code="simulated_device"
        )
    specs = {name: spec_of(network, target.variant) for name, network in options.named().items()}
    with target.found() as device:
        hello, variant = greet(device), target.variant_on(device)
        check_runtime(device.name, hello, variant)
        run = _BreakdownRun(device, variant, hello, options, progress)
        networks = tuple(run.network(name, spec) for name, spec in specs.items())
    result = Breakdown(target.device, hello.device, variant, networks)
    if options.operators:
        from orchestrator.report.draw import write_figure
        from orchestrator.report.figures import operators_figure

        write_figure(options.operators, operators_figure(networks, result.title), "--operators")
        progress(Note(f"picture: {options.operators}"))
    return result


def _network_report(network: NetworkBreakdown, title: str) -> Iterator[Table | str]:
    """Yield latency by kind and method, and what each kind is made of."""
    by = {item.method: item for item in network.attributions}
    rows = [
        {"kind": TITLES[kind], "parts": network.parts.get(kind)} | _cells(by, kind)
        for kind in KINDS
        if any(kind in item.shares for item in by.values())
    ]
    for name, value in (("unexplained", "unexplained_ms"), ("whole", "whole_ms")):
        rows.append({"kind": name} | {method: getattr(item, value) for method, item in by.items()})
    columns = [Column("kind", "kind"), Column("parts", "parts")]
    for method, item in by.items():
        columns.append(Column(method, f"{METHOD_TITLES[method]}, ms", 3))
        for row in rows:
            if isinstance(ms := row.get(method), float):
                row[f"{method}_share"] = ms / item.whole_ms
        columns.append(Column(f"{method}_share", "of the whole", 1, percent=True))
    if "removal" in by:
        columns += [Column("low", "95 % low, ms", 3), Column("high", "high, ms", 3)]
    yield Table(f"{network.model} on {title}", columns, rows)
    if "tracer" in by and by["tracer"].roof:
        yield from _part_report(by["tracer"], by["tracer"].roof)
    for item in by.values():
        for note in item.notes:
            yield f"{METHOD_TITLES[item.method]}: {note}"


def _cells(by: Mapping[Method, Attribution], kind: Kind) -> dict[str, Any]:
    shares = {method: item.shares[kind] for method, item in by.items() if kind in item.shares}
    cells: dict[str, Any] = {method: share.ms for method, share in shares.items()}
    if "removal" in shares:
        cells |= {"low": shares["removal"].low, "high": shares["removal"].high}
    return cells


PART_COLUMNS = (
    Column("kind", "kind"),
    Column("part", "of which"),
    Column("operators", "operators", spare=3),
    Column("ms", "ms", 3),
    Column("share", "of the whole", 1, percent=True),
    Column("macs", "MACs", counted=True, spare=1),
    Column("data_bytes", "bytes", counted=True, spare=1),
    Column("roof_ms", "at the roof, ms", 3),
    Column("memory_bound", "of its ms memory-bound", 0, percent=True),
)


def _part_report(item: Attribution, roof: Roof) -> Iterator[Table | str]:
    rows = [
        asdict(part)
        | {
            "kind": TITLES[part.kind],
            "part": PART_TITLES[part.part],
            "share": part.ms / item.whole_ms,
            "memory_bound": part.memory_bound_ms / part.ms if part.ms else None,
        }
        for part in item.parts
    ]
    yield Table("what each kind is made of", PART_COLUMNS, rows)
    yield (
        f"roofline: {roof.gmacs_s:.1f} GMAC/s in a matrix product, {roof.gbytes_s:.1f} GB/s in a copy of 16 MiB, "
        "measured between the network's rounds; data in a cache can be faster"
    )


def tracing() -> ModuleType:
    """Import the tracing code without torch's log messages about quantised types."""
    with quiet():
        return importlib.import_module("orchestrator.breakdown.tracing")


@dataclass(frozen=True)
class _BreakdownRun:
    device: Device
    variant: Variant
    hello: HelloReply
    options: BreakdownCommand
    progress: Progress

    def network(self, name: str, spec: ExportSpec) -> NetworkBreakdown:
        """Return one network's breakdown by the requested methods."""
        method = self.options.method
        self.progress(Note(f"{name}: listing its operations"))
        parts = count_parts(spec)
        artifacts, unexported = self._exported(
            {WHOLE: spec} if method == "tracer" else removal_specs(spec, parts)
        )
        attributions = [] if method == "removal" else self._traced(name, artifacts[WHOLE])
        if method != "tracer":
            files = files_of(artifacts)
            attributions.append(
                measure_removals(
                    self.device, self.variant, files, parts, unexported, self.options, self.progress
                )
            )
        counts = {kind: census.parts for kind, census in parts.items()}
        return NetworkBreakdown(name, artifacts[WHOLE].sha256, counts, tuple(attributions))

    def _exported(self, specs: Mapping[str, ExportSpec]) -> tuple[dict[str, Artifact], dict[str, str]]:
        """Export models by id; return why some could not be exported. The whole network must be."""
        artifacts, reasons = export_possible(specs, self.options.workers, self.progress)
        if WHOLE in reasons:
            raise BlocktimeError(f"{specs[WHOLE].name}: {reasons[WHOLE]}", code="export_failed")
        return artifacts, reasons

    def _traced(self, name: str, artifact: Artifact) -> list[Attribution]:
        """Return the tracer's attribution; nothing, and a note, if there is no tracer."""
        loaded = tracing()
        reason = loaded.untraceable_reason(self.hello, self.variant)
        if reason and self.options.method == "tracer":
            raise UsageError(reason.replace("by removal alone", "use --method removal"), code="no_tracer")
        self.progress(Note(f"{name}: {reason or 'tracing'}"))
        return [] if reason else [loaded.trace_network(self.device, self.variant, artifact)]


def count_parts(spec: ExportSpec) -> dict[Kind, Census]:
    """Return the parts of a network by kind."""
    from orchestrator.export.lower.removal import census  # brings torch
    from orchestrator.export.lower.source import build_module

    return census(*build_module(spec), spec.backend)


def removal_specs(spec: ExportSpec, parts: Mapping[Kind, Census]) -> dict[str, ExportSpec]:
    """Return the network, and it without each kind that can be removed, by journal id."""
    return {WHOLE: spec} | {
        kind: replace(spec, without=kind) for kind in KINDS if kind in parts and parts[kind].removable
    }


def measure_removals(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    parts: Mapping[Kind, Census],
    unexported: Mapping[str, str],
    options: ScheduleOptions,
    progress: Progress = silent,
) -> Attribution:
    """Measure a network next to itself without one kind after another, by journal id; resumes an open run.

    Notes say for which kinds there is no file (`unexported`), and which parts can't be removed. Raises like
    `break_down`.
    """
    digest = hashlib.sha256(" ".join(file.sha256 for file in files.values()).encode()).hexdigest()
    label = f"breakdown-{device.name}-{variant.name}-{digest[:8]}"
    run = find_run(runs_root(), label if options.self_test else f"{label}-untested")
    measured = measure(
        device,
        variant,
        ModelSet(dict(files), WHOLE, digest, options.seed),
        run.journal,
        Policy.of(variant.is_simulated, options.self_test),
        EngineOptions(budget_s=options.budget_s, progress=steps(progress)),
    )
    if WHOLE in measured.failures:
        raise InvalidArtifactError(
            f"the network can't be measured: {measured.failures[WHOLE]}", code="reference_failed"
        )
    ratios = {kind: measured.estimates.ratios[kind] for kind in KINDS if kind in measured.estimates.ratios}
    failures = {**unexported, **measured.failures}
    notes = [f"without {TITLES[kind]}: {why}" for kind in KINDS if (why := failures.get(kind))]
    notes += [
        f"{TITLES[kind]}: {counts.parts - counts.removable} of {counts.parts} parts can't be removed"
        for kind, counts in parts.items()
        if counts.removable < counts.parts
    ]
    removed = by_removal(measured.reference.ms, ratios, notes)
    result = run.folder / "breakdown.json"
    write_json(result, removed.to_dict())
    run.finish(str(result))
    return removed
