"""A bundle run by every agent that is a program, ended and started again: a journal that `bench import` takes."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from orchestrator.agent.programs import AgentProgram, agent_program
from orchestrator.bundle.archive import MANIFEST, write_bundle
from orchestrator.bundle.journal import (
    BatchEnd,
    BatchStart,
    BundleEnd,
    BundleEnding,
    LoadRecord,
    ModelFailure,
    RunRecord,
    read_journal,
)
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.replay import Replay, make_script
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.messages import ErrorBody, LoadReply
from tests.support.agent_programs import BUILT, digest, require_built
from tests.support.tiny_model import Exported
from tests.support.waiting import until

VARIANT = Variant("executorch", "xnnpack", "fp32", 1)
POLICY = Policy(
    batch_models=2,
    warmup=1,
    warmup_ms=0,
    chunk_rounds=3,
    min_rounds=6,
    max_rounds=12,
    load_se=1.0,
    min_passes=3,
    max_passes=6,
    half_width=1.0,
)
"""Any noise is little enough: 6 rounds of 12, and 3 passes of 6."""

GROUPS, RUNS = 2, 2
BATCHES = 3 * GROUPS


@pytest.fixture(params=BUILT)
def program(request: pytest.FixtureRequest) -> AgentProgram:
    require_built(request.param)
    return agent_program(request.param)


def models(exported: Exported, folder: Path) -> dict[str, ModelFile]:
    """A reference, two models of the same cost, and a file that is none."""
    program = exported.path.read_bytes()
    contents = {
        "reference": program,
        "same": program + bytes(16),
        "also-same": program + bytes(32),
        "broken": b"no model",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: ModelFile(folder / name, digest(content)) for name, content in contents.items()}


@pytest.fixture
def subject(exported: Exported, tmp_path: Path) -> ModelSet:
    return ModelSet(models(exported, tmp_path), "reference", "plan", 0)


@pytest.fixture
def bundle(subject: ModelSet, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.bundle"
    script = make_script(subject, VARIANT, POLICY, 600.0, poll_s=0.01)
    write_bundle(path, "linux", b"{}", script, {file.sha256: file for file in subject.files.values()})
    return path


def command(program: AgentProgram, bundle: Path) -> list[str]:
    store = bundle.with_name("store")
    return [*program.command, "--store", str(store), "--bundle", str(bundle)]


def run(program: AgentProgram, bundle: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(program, bundle), capture_output=True, text=True, timeout=300, check=False)


def test_killed_bundle_resumes(
    program: AgentProgram, bundle: Path, subject: ModelSet, tmp_path: Path
) -> None:
    journal = tmp_path / "tiny.bundle.journal.jsonl"

    def a_batch_is_done() -> bool:
        return journal.exists() and b'"kind":"end"' in journal.read_bytes()

    with subprocess.Popen(command(program, bundle), stdout=subprocess.DEVNULL) as first:
        until(a_batch_is_done, 300)
        first.kill()
    done = run(program, bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(journal)]
    assert run(program, bundle).returncode == 0
    _, records = read_journal(journal)
    kinds = [record.kind for record in records]
    assert kinds.count("bundle") == kinds.count("done") == 1
    assert kinds.count("start") <= 2
    assert {record.batch for record in records if isinstance(record, BatchEnd)} == set(range(BATCHES))
    results = [record.result() for record in records if isinstance(record, RunRecord)]
    assert all((result.samples > 0).all() for result in results)
    loads = [record.result() for record in records if isinstance(record, LoadRecord)]
    assert {load.code for load in loads if isinstance(load, ErrorBody)} == {"bad_model"}
    assert {load.options["threads"] for load in loads if isinstance(load, LoadReply)} == {1}
    failed = [record for record in records if isinstance(record, ModelFailure)]
    assert [record.sha256 for record in failed] == [subject.files["broken"].sha256]
    Replay("here", journal, records, subject, VARIANT, POLICY)


def test_agent_stops_when_narrow(program: AgentProgram, bundle: Path, subject: ModelSet) -> None:
    done = run(program, bundle)
    assert done.returncode == 0, done.stderr
    journal = Path(done.stdout.strip())
    _, records = read_journal(journal)
    assert records[-1] == BundleEnd(kind="done", ended="narrow")
    by_kind = Counter(type(record) for record in records)
    assert by_kind[BatchEnd] == BATCHES, "of passes that are not needed none is begun"
    assert by_kind[RunRecord] == RUNS * BATCHES, "nor rounds"
    models: dict[int, str] = {}
    runs: list[RunRecord] = []
    for record in records:
        if isinstance(record, BatchStart):
            models, runs = {}, []
        elif isinstance(record, LoadRecord):
            models[record.slot] = record.sha256
        elif isinstance(record, RunRecord):
            runs.append(record)
        elif isinstance(record, BatchEnd):
            expected = {models[slot]: midmean(logs) for slot, logs in log_ratios(runs).items()}
            assert record.logs == pytest.approx(expected, abs=1e-9)
            assert record.worked_s > 0
    assert "batch 1 of 12, pass 1 of 3 to 6, 0 min so far" in done.stderr
    assert "6 rounds, noise " in done.stderr


def log_ratios(runs: list[RunRecord]) -> dict[int, list[float]]:
    """Log ratios of each slot to the reference's two slots, by round; the last call of a slot in a round counts."""
    logs: dict[int, list[float]] = {}
    for run in runs:
        for order, row in zip(run.order, run.result().samples, strict=True):
            last = {slot: math.log(ns) for slot, ns in zip(order, row, strict=True)}
            for slot in last.keys() - {0, 1}:
                logs.setdefault(slot, []).append(last[slot] - (last[0] + last[1]) / 2)
    return logs


def midmean(logs: list[float]) -> float:
    """Mean without the lowest and the highest quarter."""
    cut = len(logs) // 4
    return mean(sorted(logs)[cut : len(logs) - cut])


@pytest.mark.parametrize(("budget_s", "ended", "passes"), [(0.0, "budget", 2), (600.0, "passes", 3)])
def test_budget_and_passes_end_a_bundle(
    program: AgentProgram,
    subject: ModelSet,
    tmp_path: Path,
    budget_s: float,
    ended: BundleEnding,
    passes: int,
) -> None:
    policy = replace(POLICY, half_width=0.0, load_se=0.0, min_passes=2, max_passes=3)
    files = {name: file for name, file in subject.files.items() if name != "broken"}
    subject = replace(subject, files=files)
    path = tmp_path / "wide.bundle"
    script = make_script(subject, VARIANT, policy, budget_s, poll_s=0.01)
    write_bundle(path, "linux", b"{}", script, {file.sha256: file for file in subject.files.values()})
    done = run(program, path)
    assert done.returncode == 0, done.stderr
    _, records = read_journal(Path(done.stdout.strip()))
    assert records[-1] == BundleEnd(kind="done", ended=ended)
    by_kind = Counter(type(record) for record in records)
    assert by_kind[RunRecord] == 2 * RUNS * passes, "all rounds, since none are narrow enough"


def test_ctrl_c_is_not_taken_for_the_end(program: AgentProgram, bundle: Path, tmp_path: Path) -> None:
    journal = tmp_path / "tiny.bundle.journal.jsonl"

    def has_begun() -> bool:
        return journal.exists() and b'"kind":"load"' in journal.read_bytes()

    with subprocess.Popen(
        command(program, bundle), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        until(has_begun, 300)
        running.send_signal(signal.SIGINT)
        reported, _ = running.communicate(timeout=300)
    assert running.returncode in (130, -signal.SIGINT)
    assert reported == b""
    assert b'"kind":"done"' not in journal.read_bytes()
    assert run(program, bundle).returncode == 0


def test_what_can_t_be_used_is_one_line(program: AgentProgram, bundle: Path, tmp_path: Path) -> None:
    journal = tmp_path / "tiny.bundle.journal.jsonl"
    journal.write_text("hello\n")
    assert_refused(run(program, bundle), "is not a journal of a bundle")
    assert journal.read_text() == "hello\n"
    journal.unlink()
    with tarfile.open(bundle) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    manifest = json.loads(contents[MANIFEST])
    rewrite(bundle, contents | {MANIFEST: json.dumps({**manifest, "protocol": 2}).encode()})
    assert_refused(run(program, bundle), "is a bundle for protocol 2, and this is 1")
    del contents[next(name for name in contents if name.startswith("models/"))]
    rewrite(bundle, contents)
    assert_refused(run(program, bundle), "is missing or cut short")
    assert not journal.exists()


def rewrite(bundle: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(bundle, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in contents.items():
            part = bundle.with_name("part")
            part.write_bytes(content)
            tar.add(part, name)


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 6, done.stderr
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
