"""Past measurements, read back from their journals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.statistics import Percentiles, percentiles
from luts.format.errors import InvalidArtifactError, UsageError, shorten
from luts.format.table import Column, Facts, Table, filled
from orchestrator.journal.log import JournalSamples, read_log, read_records
from orchestrator.journal.records import FailureRecord, Header, parse_record
from orchestrator.journal.runs import Run, runs_root
from orchestrator.tasks.measured import PERCENTILE_COLUMNS
from orchestrator.tasks.options import argument
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.sustained import SustainedRun, is_sustained, read_sustained

_OTHERS = ("measure", "breakdown", "study", "alone", "sustained")
"""Prefixes of the names of runs that are not profiles."""


@dataclass(frozen=True)
class PastRun:
    """One run, without its samples.

    Attributes:
        what: Command that made it, judging by its name.
        device: Device as it calls itself.
        began: Date and time.
        result: What it resulted in; None while it is unfinished.
        models: Number of models to measure.
        kept: Number of batches that count; `rejected` ones were repeated.
        failures: Number of models that the device could not run.
    """

    name: str
    folder: Path
    what: str
    device: str
    os: str
    variant: str
    began: str
    simulated: bool
    result: str | None
    models: int
    kept: int
    rejected: int
    failures: int

    def to_dict(self) -> dict[str, Any]:
        """Return a flat row, for JSON and tables."""
        return asdict(self) | {
            "folder": str(self.folder),
            "numbers": "simulated" if self.simulated else "measured",
            "state": "open" if self.result is None else "done",
        }


@dataclass(frozen=True)
class PastLatency:
    """One model of a run; `model` is its name where the run knows it, else its id in the journal.

    Milliseconds with the 95 % interval, None for one that was not measured; `failure` says why.
    """

    model: str
    ms: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    loads: int = 0
    rounds: int = 0
    percentiles: Percentiles | None = None
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a flat row, for JSON and tables."""
        fields = asdict(self)
        fields.pop("percentiles")
        return fields | (self.percentiles or percentiles([])).columns()


@dataclass(frozen=True)
class RunList:
    """Past runs, newest first."""

    runs: tuple[PastRun, ...]

    COLUMNS: ClassVar = (
        Column("name", "run"),
        Column("what", "of", spare=2),
        Column("device", "device", spare=3),
        Column("variant", "variant", spare=3),
        Column("numbers", "numbers"),
        Column("models", "models", spare=1),
        Column("kept", "batches", spare=2),
        Column("began", "began", spare=1),
        Column("state", "state"),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"runs": [run.to_dict() for run in self.runs]}

    def report(self) -> Iterator[Table]:
        """Yield the table, with times as `2026-03-01 09:30`, in UTC."""
        if self.runs:
            rows = [run.to_dict() | {"began": run.began[:16].replace("T", " ")} for run in self.runs]
            yield Table("", self.COLUMNS, rows)


@dataclass(frozen=True)
class RunLatencies:
    """A run and the latencies of its models."""

    run: PastRun
    models: tuple[PastLatency, ...]

    COLUMNS: ClassVar = (
        Column("model", "model"),
        Column("ms", "ms", 3),
        Column("ci_low", "95 % low", 3),
        Column("ci_high", "high", 3),
        *PERCENTILE_COLUMNS,
        Column("loads", "loads"),
        Column("rounds", "rounds"),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return run and models."""
        return {"run": self.run.to_dict(), "models": [model.to_dict() for model in self.models]}

    def report(self) -> Iterator[Table | Facts | str]:
        """Yield facts about the run, the latencies, and why others could not be measured."""
        facts = {name: value for name, value in self.run.to_dict().items() if value is not None}
        simulated = ", SIMULATED: not measured on any device" if self.run.simulated else ""
        yield Facts(facts.pop("name") + simulated, facts)
        rows = [model.to_dict() for model in self.models]
        yield Table("", filled(self.COLUMNS, rows), rows)
        yield from (f"{m.model} can't be measured: {m.failure}" for m in self.models if m.failure)


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """List past measurements, newest first, or show the latencies of one.

    Runs are in $BLOCKTIME_RUNS (default: blocktime/runs in the XDG data folder).
    """

    run: str | None = argument(
        None, "Name of a run, a part of it that fits no other, or its folder.", metavar="RUN"
    )


def read_runs(options: RunsOptions, progress: Progress = silent) -> RunList | RunLatencies | SustainedRun:
    """Return all runs, or the latencies of one; runs that can't be read give a note."""
    if options.run is None:
        runs, broken = past_runs()
        for name, reason in broken.items():
            progress(Note(f"warning: run {name} can't be read: {reason}"))
        if not runs:
            progress(Note(f"no runs in {runs_root()}"))
        return RunList(tuple(runs))
    run = find_past_run(options.run)
    if is_sustained(run):
        return read_sustained(run)
    past, models = run_latencies(run)
    return RunLatencies(past, tuple(models))


def past_runs(root: Path | None = None) -> tuple[list[PastRun], dict[str, str]]:
    """Return all runs of a folder, newest first, and the errors of unreadable ones by name."""
    runs, broken = [], {}
    for journal in (root or runs_root()).glob("*/journal.jsonl"):
        try:
            runs.append(_past_run(Run(journal.parent)))
        except InvalidArtifactError as error:
            broken[journal.parent.name] = str(error)
    return sorted(runs, key=lambda run: (run.began, run.name), reverse=True), broken


def find_past_run(name: str, root: Path | None = None) -> Run:
    """Return a run by its folder, its name, or a part of the name that fits no other.

    Raises:
        UsageError: none or several fit.
    """
    if (Path(name) / "journal.jsonl").is_file():
        return Run(Path(name))
    folders = {path.parent.name: path.parent for path in (root or runs_root()).glob("*/journal.jsonl")}
    fitting = [name] if name in folders else sorted(known for known in folders if name and name in known)
    if len(fitting) == 1:
        return Run(folders[fitting[0]])
    if fitting:
        raise UsageError(f"run {name} fits several: {shorten(fitting)}; name one", code="ambiguous_run")
    raise UsageError(f"no run {name} in {root or runs_root()}; bench runs lists them", code="unknown_run")


def run_latencies(run: Run) -> tuple[PastRun, list[PastLatency]]:
    """Return a run and the latencies of its models from its journal, fastest first.

    Raises:
        InvalidArtifactError: it is damaged, or has no samples.
    """
    records = read_log(run.journal)
    header = records[0]
    assert isinstance(header, Header)
    estimation = JournalSamples(records).estimation(header.reference_id)
    failed = {record.model: record.reason for record in records if isinstance(record, FailureRecord)}
    names = run.model_names()
    measured = [model for model in estimation.ratios if model not in failed]
    rows = [_latency(names.get(model, model), model, estimation) for model in measured]
    rows.sort(key=lambda row: (row.ms or 0, row.model))
    rows += [PastLatency(names.get(model, model), failure=why) for model, why in sorted(failed.items())]
    return _past_run(run), rows


def _latency(name: str, model: str, estimation: LatencyEstimates) -> PastLatency:
    ratio, quiet = estimation.ratios[model], estimation.quiet
    ms, low, high = (quiet.ms * math.exp(log) for log in (ratio.log_ratio, ratio.low, ratio.high))
    low, high = quiet.widen(ms, low, high)
    return PastLatency(name, ms, low, high, ratio.loads, ratio.rounds, estimation.percentiles(model))


def _past_run(run: Run) -> PastRun:
    documents = read_records(run.journal)
    header = parse_record(documents[0]) if documents else None
    if not isinstance(header, Header):
        raise InvalidArtifactError(
            f"{run.journal} does not begin with a header; it is not a journal of bench",
            code="invalid_journal",
        )
    ends = Counter(bool(document.get("kept")) for document in documents if document.get("kind") == "end")
    identity, name = header.identity, run.folder.resolve().name
    return PastRun(
        name=name,
        folder=run.folder,
        what=next((word for word in _OTHERS if name.startswith(f"{word}-")), "profile"),
        device=identity.device_model,
        os=f"{identity.os} {identity.os_build}".strip(),
        variant=identity.variant,
        began=header.created,
        simulated=header.simulated,
        result=run.result,
        models=len(identity.artifacts),
        kept=ends[True],
        rejected=ends[False],
        failures=sum(document.get("kind") == "failure" for document in documents),
    )
