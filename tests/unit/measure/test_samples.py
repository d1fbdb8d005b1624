"""Samples of a growing journal: the same as read at once, and nothing computed twice."""

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from luts.estimate import ratios as module
from luts.estimate.latencies import LatencyEstimates
from luts.estimate.statistics import location_and_se
from orchestrator.journal.log import JournalSamples, read_log, samples_table
from orchestrator.journal.records import BatchRecord, RoundsRecord
from tests.support.errors import raises
from tests.support.fake_device import POLICY, QUIET, device, run


@pytest.fixture
def records(tmp_path):
    """Of a run with a rejected batch, cut off once; chunks of four rounds."""
    policy = dataclasses.replace(POLICY, chunk_rounds=4, load_se=0.0)
    fake = device(states=[QUIET, QUIET | {"thermal_state": "serious"}], lose_after={6})
    run(tmp_path, fake, policy)
    return read_log(tmp_path / "journal.jsonl")


def reported(estimation):
    """Everything that an estimation says, for exact comparison."""
    names = ("batch", "segment", "models", "copies", "kept")
    loads = [
        ([getattr(segment, name) for name in names], segment.log_ns.tolist())
        for segment in estimation.segments
    ]
    return loads, estimation.ratios, estimation.covariance.tolist(), estimation.quiet


def test_growing_journal_equals_whole_journal(records):
    grown = JournalSamples()
    asked = 0
    for number, record in enumerate(records, start=1):
        grown.add(record)
        if isinstance(record, RoundsRecord) and record.first_round >= 4:
            estimation = grown.estimation("model00")
            table = samples_table(records[:number])
            assert estimation.samples.equals(table)
            assert reported(estimation) == reported(LatencyEstimates.of(table, "model00"))
            asked += 1
    assert asked > 10
    sessions = grown.estimation("model00").segments
    verdicts, segments = ({getattr(s, name) for s in sessions} for name in ("kept", "segment"))
    assert (verdicts, segments) == ({True, False}, {0, 1})


def test_estimates_of_some_batches(records):
    samples = JournalSamples(records)
    table = samples.table()
    batches = {0, table.column("batch").to_pylist()[-1]}
    rest = table.filter(np.isin(table.column("batch").to_numpy(), list(batches)))
    some = samples.estimation("model00", batches)
    assert {session.batch for session in some.segments} == batches
    assert some.samples.equals(LatencyEstimates.of(rest, "model00").samples)
    assert reported(some) == reported(LatencyEstimates.of(rest, "model00"))
    assert some.loads == [ratio for ratio in samples.estimation("model00").loads if ratio.batch in batches]


def test_loads_are_reduced_once(records, monkeypatch):
    calls = []

    def counted(values):
        calls.append(values.shape)
        return location_and_se(values)

    monkeypatch.setattr(module, "location_and_se", counted)
    samples = JournalSamples(records)
    first = samples.estimation("model00").ratios
    once = len(calls)
    again = samples.estimation("model00").ratios
    assert (len(calls), again) == (once, first)
    last = max((r for r in records if isinstance(r, RoundsRecord)), key=lambda r: r.batch)
    samples.add(last.model_copy(update={"first_round": last.first_round + 100}))
    assert samples.estimation("model00").ratios != first
    sessions = samples.estimation("model00").segments
    grown = next(session for session in sessions if session.batch == last.batch)
    assert len(calls) == once + len(grown.models) - 2 + 1


def test_estimates_without_models(records):
    estimation = JournalSamples(records).estimation("model00")
    assert estimation.without(["never", "measured"]) is estimation
    table = samples_table(records)
    rest = table.filter(np.array([name != "model03" for name in table.column("model").to_pylist()]))
    assert reported(estimation.without({"model03"})) == reported(LatencyEstimates.of(rest, "model00"))


def test_orphan_samples_are_refused(records):
    orphans = [record for record in records if not isinstance(record, BatchRecord)]
    with raises("invalid_journal"):
        JournalSamples(orphans).estimation("model00")
    with raises("no_samples"):
        JournalSamples(records[:2]).table()


def test_calls_of_models_that_were_not_loaded_are_refused(records):
    """Slots count from 0: with n models the highest is n - 1."""
    batch = next(record for record in records if isinstance(record, BatchRecord))
    rounds = next(record for record in records if isinstance(record, RoundsRecord))
    last = len(batch.slots) - 1
    order = [[slot if slot < last else last + 1 for slot in row] for row in rounds.order]
    with raises("invalid_journal"):
        JournalSamples([batch, rounds.model_copy(update={"order": order})]).table()
    assert JournalSamples([batch, rounds]).table().num_rows
    for copies in ([], batch.copies[1:]):
        with pytest.raises(ValidationError, match=f"{len(copies)} copies for {len(batch.slots)} slots"):
            BatchRecord.model_validate(batch.model_dump() | {"copies": copies})


def test_partly_kept_batch_is_refused(records):
    table = samples_table(records)
    kept = np.ones(table.num_rows, dtype=bool)
    kept[0] = False
    mixed = table.set_column(table.column_names.index("kept"), "kept", [kept])
    with raises("mixed_batch"):
        LatencyEstimates.of(mixed, "model00")
