"""The engine against a device with known truth: recovery, resuming, rejection, and what must not be mixed."""

import dataclasses
import math

import pytest

from luts.format.errors import UsageError
from orchestrator.export.artifacts.variant import Variant
from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.log import read_log
from orchestrator.journal.records import BatchRecord, ChunkRecord, EndRecord
from orchestrator.journal.samples import samples_table
from orchestrator.measure import readiness
from orchestrator.measure.link import Link
from orchestrator.measure.session import Subject, measure
from orchestrator.wire.device_state import DeviceState
from orchestrator.wire.errors import AgentLost
from orchestrator.wire.model_file import ModelFile
from tests.support.fake_device import (
    POLICY,
    QUIET,
    SHA,
    TRUE_MS,
    VARIANT,
    FakeClient,
    FakeDevice,
    device,
    subject,
)
from tests.support.sample_places import sample_places


def run(tmp_path, fake, policy=POLICY, budget_s=1e9, variant=VARIANT):
    journal = tmp_path / "journal.jsonl"
    return measure(
        fake, variant, subject(tmp_path), journal, policy, budget_s=budget_s, progress=lambda *_: None
    )


def visits(tmp_path):
    """Every timed visit as (batch, round, position): none may come twice."""
    return sample_places(read_log(tmp_path / "journal.jsonl"))


def test_ratios_are_recovered_under_drift(tmp_path):
    result = run(tmp_path, device())
    for name, true_ms in TRUE_MS.items():
        ratio = result.estimates.ratios[name].log_ratio
        assert ratio == pytest.approx(math.log(true_ms / TRUE_MS["model00"]), abs=0.02)
    assert set(result.estimates.ratios) == set(TRUE_MS)


def test_every_batch_holds_the_reference_twice_and_every_round_every_slot(tmp_path):
    run(tmp_path, device())
    records = read_log(tmp_path / "journal.jsonl")
    batches = {(r.batch, r.segment): r for r in records if isinstance(r, BatchRecord)}
    orders = set()
    for batch in batches.values():
        assert batch.slots.count("model00") == 2
        assert sorted(batch.copies[i] for i, name in enumerate(batch.slots) if name == "model00") == [0, 1]
    for chunk in (r for r in records if isinstance(r, ChunkRecord)):
        slots = len(batches[chunk.batch, chunk.segment].slots)
        for row in chunk.order:
            assert row[::2] == row[1::2]
            assert sorted(row[::2]) == list(range(slots))
            orders.add(tuple(row))
    assert len(orders) > 50


def test_every_run_is_warmed_up_by_time_and_the_journal_says_for_how_long(tmp_path):
    fake = device()
    run(tmp_path, fake, dataclasses.replace(POLICY, min_rounds=20))
    warmups, warmups_ms = zip(*fake.warmups, strict=True)
    assert set(warmups_ms) == {POLICY.warmup_ms}
    assert set(warmups) == {0, POLICY.warmup}, "visits after a load are for its first run alone"
    chunks = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, ChunkRecord)]
    assert [chunk.warmed.rounds for chunk in chunks] == list(range(1, fake.runs + 1))


def test_every_run_goes_at_the_pace_of_the_policy(tmp_path):
    fake = device()
    run(tmp_path, fake, dataclasses.replace(POLICY, pace_us=33_333, max_passes=1, min_passes=1))
    assert fake.paces == {33_333}
    with pytest.raises(MeasurementRejectedError, match=r"policy \(.*pace_us"):
        run(tmp_path, device(), dataclasses.replace(POLICY, max_passes=1, min_passes=1))


def test_models_have_other_company_in_every_pass(tmp_path):
    run(tmp_path, device(), dataclasses.replace(POLICY, half_width=0.0))
    company = {}
    for batch in (r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, BatchRecord)):
        company.setdefault(batch.pass_index, set()).add(frozenset(batch.slots) - {"model00"})
    assert [sorted(map(len, groups)) for groups in company.values()] == [[4, 4]] * 3
    assert len({frozenset(groups) for groups in company.values()}) == 3


def test_a_batch_ends_as_soon_as_every_ratio_is_narrow(tmp_path):
    """After `min_rounds` without noise, after `max_rounds` with much of it."""
    for noise, rounds in ((0.0, POLICY.min_rounds), (0.5, POLICY.max_rounds)):
        folder = tmp_path / str(noise)
        run(folder, device(noise=noise), dataclasses.replace(POLICY, max_attempts=99))
        seen = {}
        for chunk in (r for r in read_log(folder / "journal.jsonl") if isinstance(r, ChunkRecord)):
            seen[chunk.batch] = seen.get(chunk.batch, 0) + len(chunk.order)
        assert set(seen.values()) == {rounds}


def test_a_batch_is_loaded_in_an_order_of_its_own(tmp_path):
    fake = device()
    run(tmp_path, fake, dataclasses.replace(POLICY, half_width=0.0))
    batches = [r.slots for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, BatchRecord)]
    names = {sha: name for name, sha in SHA.items()}
    places = set()
    for slots in batches:
        loaded = [names[fake.loads.pop(0)] for _ in slots]
        assert sorted(loaded) == sorted(slots)
        places.add(tuple(slots.index(name) for name in loaded))
    assert len(batches) == 6
    assert len(places) > 3, "as good as never the same order of slots twice"
    assert fake.loads == []


def test_a_throttled_batch_is_followed_by_a_pause_and_no_other_is(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    policy = dataclasses.replace(POLICY, cooling_s=7.0)
    run(tmp_path / "cool", device(), policy)
    assert pauses == []
    run(tmp_path / "hot", device(states=[QUIET, throttled()]), policy)
    assert pauses == [7.0]


def capped(mhz):
    return QUIET | {"cpus": [{"cpu": 4, "mhz": None, "max_mhz": mhz, "governor": None}]}


def test_a_chunk_in_which_the_cap_of_a_clock_moved_is_measured_again(tmp_path):
    full, cut = capped(2367.0), capped(1800.0)
    outcome = run(tmp_path, device(states=[full, cut, cut, cut]))
    assert outcome.batches_rejected == 0
    chunks = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, ChunkRecord)]
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


def test_a_cap_that_moves_is_allowed_with_throttled_and_every_result_says_so(tmp_path, monkeypatch):
    moving = device(states=[capped(2367.0), capped(1800.0)] * 100)
    monkeypatch.setattr(moving, "allow", ("throttled",), raising=False)
    outcome = run(tmp_path, moving)
    assert outcome.batches_rejected == 0
    assert not any(r.rejected for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, ChunkRecord))
    assert outcome.conditions.caveats == {"throttled"}


def test_a_phone_that_may_be_measured_throttled_is_not_left_to_cool(monkeypatch):
    fake = device()
    fake.stands = QUIET | {"thermal_state": "serious"}
    fake.allow = ("throttled",)
    monkeypatch.setattr(readiness, "_sleep", lambda _: pytest.fail("nothing to wait for"))
    readiness.cool_down(Link(fake, "executorch", {}), 60.0, pytest.fail)


def test_a_warm_phone_cools_before_a_batch(monkeypatch):
    fake, slept, said = device(), [], []
    warm, fair = QUIET | {"thermal_headroom": 0.70}, QUIET | {"thermal_state": "fair"}
    later = [fair, QUIET]

    def sleep(seconds):
        slept.append(seconds)
        fake.stands = later.pop(0) if later else fake.stands

    monkeypatch.setattr(readiness, "_clock", lambda: sum(slept))
    monkeypatch.setattr(readiness, "_sleep", sleep)
    link = Link(fake, "executorch", {})
    fake.stands = warm
    readiness.cool_down(link, 60.0, said.append)
    assert (len(slept), later) == (2, [])
    fake.stands = warm
    readiness.cool_down(link, 60.0, said.append)
    assert len(slept) == 2 + 6, "a phone may stay warm for longer than anybody waits"
    assert set(said) == {"letting fake cool before the next batch"}


class Phone(FakeDevice):
    """Throttles after `bears_s` of work without a pause, and is cool again when nothing is loaded."""

    def __init__(self, bears_s):
        super().__init__({SHA[name]: ms for name, ms in TRUE_MS.items()})
        self.bears_s, self.worked_s = bears_s, 0.0

    def connect(self):
        super().connect()
        return PhoneClient(self)


class PhoneClient(FakeClient):
    def load(self, *arguments):
        if not self.loaded:
            self.device.worked_s = 0.0
        return super().load(*arguments)

    def run(self, handles, order, *warmup):
        before = self._state()
        result = super().run(handles, order, *warmup)
        self.device.worked_s += result.samples.sum() / 1e9
        return dataclasses.replace(result, state_before=before, state_after=self._state())

    def _state(self):
        hot = self.device.worked_s > self.device.bears_s
        return DeviceState.model_validate(QUIET | {"thermal_state": "serious" if hot else "nominal"})


def test_batches_that_are_longer_than_a_phone_bears_are_split(tmp_path):
    """Four models of 2.1 ms on average and twice 1 ms, in 20 rounds of 2 runs: 0.42 s; two models: 0.25 s."""
    policy = dataclasses.replace(POLICY, min_rounds=20, half_width=1e-9)
    result = run(tmp_path, Phone(bears_s=0.3), policy)
    assert {ratio.loads for name, ratio in result.estimates.ratios.items() if name != "model00"} == {3}
    records = read_log(tmp_path / "journal.jsonl")
    kept = {record.batch for record in records if isinstance(record, EndRecord) and record.kept}
    hot = [r.batch for r in records if isinstance(r, EndRecord) and r.reason == "thermal state serious"]
    models = {r.batch: len(r.slots) - 2 for r in records if isinstance(r, BatchRecord)}
    assert hot[:2] == [0, 1]
    assert [models[batch] for batch in hot[:2]] == [4, 4]
    assert {models[batch] for batch in kept} <= {1, 2}
    assert run(tmp_path, Phone(bears_s=0.3), policy).estimates.ratios == result.estimates.ratios


def test_a_phone_that_is_not_cool_at_first_is_no_reason_to_split(tmp_path):
    hot = QUIET | {"thermal_state": "serious"}
    run(tmp_path, device(states=[QUIET, hot, hot, hot, hot, QUIET]))
    records = read_log(tmp_path / "journal.jsonl")
    assert {len(record.slots) - 2 for record in records if isinstance(record, BatchRecord)} == {4}


def test_each_pass_is_a_fresh_load_of_every_model(tmp_path):
    result = run(tmp_path, device(), dataclasses.replace(POLICY, half_width=1e-9))
    loads = {name: ratio.loads for name, ratio in result.estimates.ratios.items() if name != "model00"}
    assert set(loads.values()) == {3}


def test_it_stops_after_the_fewest_passes_once_narrow_or_out_of_budget(tmp_path):
    narrow = run(tmp_path / "a", device(), dataclasses.replace(POLICY, max_passes=9, half_width=0.5))
    broke = run(
        tmp_path / "b", device(), dataclasses.replace(POLICY, max_passes=9, half_width=0.0), budget_s=0.0
    )
    for result in (narrow, broke):
        assert result.estimates.ratios["model01"].loads == POLICY.min_passes


def test_a_lost_device_goes_on_in_a_new_segment_without_measuring_twice(tmp_path):
    fake = device(lose_after={2, 5, 9})
    result = run(tmp_path, fake)
    assert fake.connections == 4
    found = visits(tmp_path)
    assert len(found) == len(set(found))
    segments = {r.segment for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, BatchRecord)}
    assert segments == {0, 1}
    assert set(result.estimates.ratios) == set(TRUE_MS)


@pytest.mark.parametrize("killed_at", [1, 4, 8])
def test_a_killed_run_ends_with_the_same_schedule_as_an_undisturbed_one(tmp_path, killed_at):
    policy = dataclasses.replace(POLICY, load_se=-1.0)
    quiet = {"noise": 0.0, "load_sd": 0.0}  # no batch is repeated by chance
    run(tmp_path / "whole", device(**quiet), policy)
    always_lost = range(killed_at, killed_at + 4)
    with pytest.raises(AgentLost):
        run(tmp_path / "cut", device(lose_after=always_lost, **quiet), policy)
    run(tmp_path / "cut", device(seed=1, **quiet), policy)
    whole, cut = visits(tmp_path / "whole"), visits(tmp_path / "cut")
    assert len(cut) == len(set(cut))
    assert {(b, p) for b, _, p in cut} == {(b, p) for b, _, p in whole}


def test_a_finished_run_measures_nothing_more(tmp_path):
    first = run(tmp_path, device())
    fake = device()
    again = run(tmp_path, fake)
    assert fake.runs == 0
    assert again.estimates.ratios == first.estimates.ratios


def throttled():
    return QUIET | {"thermal_state": "serious"}


def test_a_throttled_batch_is_thrown_away_and_repeated(tmp_path):
    fake = device(states=[QUIET, throttled()])
    result = run(tmp_path, fake)
    ends = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord)]
    assert [end.reason for end in ends if not end.kept] == ["thermal state serious"]
    assert (result.batches_kept, result.batches_rejected) == (len(ends) - 1, 1)
    table = samples_table(read_log(tmp_path / "journal.jsonl"))
    kept = dict(zip(table.column("batch").to_pylist(), table.column("kept").to_pylist(), strict=True))
    assert [batch for batch, good in kept.items() if not good] == [ends[0].batch]


def test_a_device_that_always_throttles_ends_with_an_error_and_keeps_the_journal(tmp_path):
    fake = device(states=[throttled()] * 1000)
    with pytest.raises(MeasurementRejectedError, match="thermal state serious"):
        run(tmp_path, fake)
    ends = [r for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, EndRecord)]
    assert len(ends) == POLICY.max_attempts


def test_two_references_that_disagree_reject_the_batch(tmp_path):
    with pytest.raises(MeasurementRejectedError, match="two loads of the reference differ"):
        for seed in range(20):
            run(
                tmp_path / str(seed),
                device(load_sd=0.2, seed=seed),
                dataclasses.replace(POLICY, max_attempts=1),
            )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda fake: setattr(fake, "os_build", "2"), "os_build .1 is now 2"),
        (lambda fake: setattr(fake, "fixed_performance", True), "fixed_performance .False is now True"),
        (lambda fake: None, "variant"),
    ],
)
def test_a_journal_of_other_conditions_is_not_mixed_and_says_which(tmp_path, change, named):
    run(tmp_path, device())
    before = (tmp_path / "journal.jsonl").read_bytes()
    fake = device()
    change(fake)
    variant = VARIANT if named != "variant" else Variant("executorch", "xnnpack", "fp32", 2)
    with pytest.raises(MeasurementRejectedError, match=named):
        run(tmp_path, fake, variant=variant)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_changed_model_is_named(tmp_path, monkeypatch):
    run(tmp_path, device())
    monkeypatch.setitem(SHA, "model03", "f" * 64)
    with pytest.raises(MeasurementRejectedError, match=r"artifacts \(model03\)"):
        run(tmp_path, device())


def test_a_runtime_that_the_agent_lacks_and_too_many_threads_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no runtime coreml; it has executorch"):
        run(tmp_path, device(), variant=Variant("coreml", "all"))
    with pytest.raises(UsageError, match="2 cores for 8 threads"):
        run(tmp_path, device(), variant=Variant("executorch", "xnnpack", "fp32", 8))


def test_one_model_alone_is_measured_against_itself(tmp_path):
    files = {"model00": ModelFile(tmp_path / "x", SHA["model00"])}
    result = measure(
        device(),
        VARIANT,
        Subject(files, "model00", "0" * 64, 0),
        tmp_path / "journal.jsonl",
        POLICY,
        budget_s=1e9,
        progress=lambda *_: None,
    )
    assert result.ms("model00")[0] == result.reference.ms


def test_load_times_come_with_the_measurement(tmp_path):
    result = run(tmp_path, device())
    assert {name: times.load_ms for name, times in result.loads.items()} == dict.fromkeys(TRUE_MS, 0.001)
