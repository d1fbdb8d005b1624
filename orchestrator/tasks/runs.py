"""Past measurements, read back from their journals."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.statistics import Percentiles, percentiles
from luts.format.errors import InvalidArtifactError, UsageError, shorten
from orchestrator.journal.log import JournalSamples, read_log, read_records
from orchestrator.journal.records import FailureRecord, Header, parse_record
from orchestrator.journal.runs import Run, runs_root

_OTHERS = ("measure", "breakdown", "study", "alone", "sustained")
"""Prefixes of the names of runs that are not profiles."""


@dataclass(frozen=True)
class PastRun:
    """One run, without its samples.

    Attributes:
        name: Name of its folder.
        folder: Its folder.
        what: Command that made it, judging by its name.
        device: Device as it calls itself.
        os: Its operating system.
        variant: Variant of the models.
        began: Date and time.
        simulated: Whether the device was simulated.
        result: What it resulted in; None while it is unfinished.
        models: Number of models to measure.
        kept: Number of batches that count.
        rejected: Number of batches that were repeated.
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
    measured = [model for model in estimation.ratios.ratios if model not in failed]
    rows = [_latency(names.get(model, model), model, estimation) for model in measured]
    rows.sort(key=lambda row: (row.ms or 0, row.model))
    rows += [PastLatency(names.get(model, model), failure=why) for model, why in sorted(failed.items())]
    return _past_run(run), rows


def _latency(name: str, model: str, estimation: LatencyEstimates) -> PastLatency:
    ratio, quiet = estimation.ratios.ratios[model], estimation.quiet
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
