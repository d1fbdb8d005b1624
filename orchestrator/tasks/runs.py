"""Past measurements, read back from their journals."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.statistics import Percentiles, percentiles
from luts.format.errors import InvalidArtifactError, UsageError, few
from orchestrator.journal.log import JournalSamples, read_log, read_records
from orchestrator.journal.records import FailureRecord, Header, parse_record
from orchestrator.journal.runs import Run, runs_root

_OTHERS = ("measure", "breakdown", "study", "alone", "sustained")
"""What names of runs that are not a profile's begin with."""


@dataclass(frozen=True)
class PastRun:
    """One run, without its samples.

    Attributes:
        name: Its folder's name.
        folder: It itself.
        what: The command that made it, as far as the name tells.
        result: What it ended in; None while it is open.
        models: That were to be measured.
        kept: Batches that count.
        rejected: Batches that were repeated.
        failures: Models that the device could not run.
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
        """One level, as JSON and tables have it."""
        fields = asdict(self)
        fields.pop("percentiles")
        return fields | (self.percentiles or percentiles([])).columns()


def past_runs(root: Path | None = None) -> tuple[list[PastRun], dict[str, str]]:
    """All runs of a folder, the newest first, and of those that can't be read what is wrong, by name."""
    runs, broken = [], {}
    for journal in (root or runs_root()).glob("*/journal.jsonl"):
        try:
            runs.append(_past_run(Run(journal.parent)))
        except InvalidArtifactError as error:
            broken[journal.parent.name] = str(error)
    return sorted(runs, key=lambda run: (run.began, run.name), reverse=True), broken


def find_past_run(name: str, root: Path | None = None) -> Run:
    """A run by its folder, its name, or a part of the name that no other has.

    Raises:
        UsageError: there is none, or several.
    """
    if (Path(name) / "journal.jsonl").is_file():
        return Run(Path(name))
    folders = {path.parent.name: path.parent for path in (root or runs_root()).glob("*/journal.jsonl")}
    fitting = [name] if name in folders else sorted(known for known in folders if name and name in known)
    if len(fitting) == 1:
        return Run(folders[fitting[0]])
    if fitting:
        raise UsageError(f"run {name} fits several: {few(fitting)}; name one")
    raise UsageError(f"no run {name} in {root or runs_root()}; bench runs lists them")


def run_latencies(run: Run) -> tuple[PastRun, list[PastLatency]]:
    """A run and what its journal says of its models, the fastest first.

    Raises:
        InvalidArtifactError: it is damaged, or holds no samples.
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
            f"{run.journal} does not begin with a header; it is not a journal of `bench`"
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
