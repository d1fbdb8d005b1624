"""A clock whose cap moves while it is measured: what was measured then does not count."""

from orchestrator.journal.log import read_log, samples_table
from orchestrator.journal.records import EndRecord, RoundsRecord
from tests.support.fake_device import POLICY, QUIET, device, records, run


def capped(mhz):
    return QUIET | {"cpus": [{"cpu": 4, "mhz": None, "max_mhz": mhz, "governor": None}]}


def test_clock_cap_change_repeats_rounds(tmp_path):
    full, cut = capped(2367.0), capped(1800.0)
    outcome = run(tmp_path, device(states=[full, cut, cut, cut]))
    assert outcome.batches_rejected == 0
    chunks = records(tmp_path, RoundsRecord)
    assert [chunk.rejected for chunk in chunks[:3]] == [
        "the clock of core 4 was capped at 1800 MHz after 2367 MHz",
        "",
        "",
    ]
    assert [chunk.first_round for chunk in chunks[:2]] == [0, 0]
    kept = sum(len(chunk.order) for chunk in chunks if not chunk.rejected)
    samples = samples_table(read_log(tmp_path / "journal.jsonl"))
    assert samples.num_rows == sum(
        len(chunk.order) * len(chunk.order[0]) // 2 for chunk in chunks if not chunk.rejected
    )
    assert kept > 0


def test_a_cap_that_keeps_moving_rejects_the_batch(tmp_path):
    moving = [capped(2367.0), capped(1800.0)] * (POLICY.max_attempts + 1)
    outcome = run(tmp_path, device(states=moving))
    assert outcome.batches_rejected == 1
    (rejected,) = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord) and not r.kept]
    assert rejected.reason == "the clock of core 4 was capped at 1800 MHz after 2367 MHz"


def test_allowed_clock_cap_change_is_a_caveat(tmp_path, monkeypatch):
    moving = device(states=[capped(2367.0), capped(1800.0)] * 100)
    monkeypatch.setattr(moving, "allow", ("throttled",), raising=False)
    outcome = run(tmp_path, moving)
    assert outcome.batches_rejected == 0
    assert not any(r.rejected for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, RoundsRecord))
    assert outcome.conditions.caveats == ("throttled",)
