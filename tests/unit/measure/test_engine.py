"""The engine against a device with known truth: recovery, resuming, rejection, and what must not be mixed."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest

from luts.estimate.latencies import LatencyEstimates
from luts.estimate.ratios import AA_MEMORY, AaDifference, history_of
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log
from orchestrator.journal.records import (
    BatchRecord,
    ChoiceRecord,
    ChosenModel,
    MeasurementRejectedError,
    RoundsRecord,
)
from orchestrator.measure.batches import close_batch, pass_groups
from orchestrator.measure.engine import ModelSet
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentLostError
from tests.support.errors import raises
from tests.support.fake_device import (
    POLICY,
    SHA,
    TRUE_MS,
    VARIANT,
    device,
    records,
    run,
)
from tests.support.sample_places import sample_places


def visits(tmp_path):
    """Every timed visit as (batch, round, position): none may come twice."""
    return sample_places(read_log(tmp_path / "journal.jsonl"))


def test_ratios_are_recovered_under_drift(tmp_path):
    result = run(tmp_path, device())
    for name, true_ms in TRUE_MS.items():
        ratio = result.estimates.ratios[name].log_ratio
        assert ratio == pytest.approx(math.log(true_ms / TRUE_MS["model00"]), abs=0.02)
    assert set(result.estimates.ratios) == set(TRUE_MS)


def test_batches_and_rounds_are_complete(tmp_path):
    run(tmp_path, device())
    records = read_log(tmp_path / "journal.jsonl")
    batches = {(r.batch, r.segment): r for r in records if isinstance(r, BatchRecord)}
    orders = set()
    for batch in batches.values():
        assert batch.slots.count("model00") == 2
        assert sorted(batch.copies[i] for i, name in enumerate(batch.slots) if name == "model00") == [0, 1]
    for chunk in (r for r in records if isinstance(r, RoundsRecord)):
        slots = len(batches[chunk.batch, chunk.segment].slots)
        for row in chunk.order:
            assert row[::2] == row[1::2]
            assert sorted(row[::2]) == list(range(slots))
            orders.add(tuple(row))
    assert len(orders) > 50


def test_runs_are_warmed_up_by_time(tmp_path):
    fake = device()
    run(tmp_path, fake, dataclasses.replace(POLICY, min_rounds=20))
    warmups, warmups_ms = zip(*fake.warmups, strict=True)
    assert set(warmups_ms) == {POLICY.warmup_ms}
    assert set(warmups) == {0, POLICY.warmup}, "visits after a load are for its first run alone"
    chunks = records(tmp_path, RoundsRecord)
    assert [chunk.warmed.rounds for chunk in chunks] == list(range(1, fake.runs + 1))


def test_runs_use_the_pace(tmp_path):
    fake = device()
    run(tmp_path, fake, dataclasses.replace(POLICY, pace_us=33_333, max_passes=1, min_passes=1))
    assert fake.paces == {33_333}
    with raises("conditions_changed"):
        run(tmp_path, device(), dataclasses.replace(POLICY, max_passes=1, min_passes=1))


def test_models_have_other_company_in_every_pass(tmp_path):
    run(tmp_path, device(), dataclasses.replace(POLICY, half_width=0.0))
    company = {}
    for batch in records(tmp_path, BatchRecord):
        company.setdefault(batch.pass_index, set()).add(frozenset(batch.slots) - {"model00"})
    assert [sorted(map(len, groups)) for groups in company.values()] == [[4, 4]] * 3
    assert len({frozenset(groups) for groups in company.values()}) == 3


def test_batch_ends_once_ratios_are_narrow(tmp_path):
    """After `min_rounds` without noise, after `max_rounds` with much of it."""
    for noise, rounds in ((0.0, POLICY.min_rounds), (0.5, POLICY.max_rounds)):
        folder = tmp_path / str(noise)
        run(folder, device(noise=noise), dataclasses.replace(POLICY, max_attempts=99))
        seen = {}
        for chunk in records(folder, RoundsRecord):
            seen[chunk.batch] = seen.get(chunk.batch, 0) + len(chunk.order)
        assert set(seen.values()) == {rounds}


def rounds_of_batches(folder) -> dict[int, list[int]]:
    """Rounds of each chunk, by batch."""
    found: dict[int, list[int]] = {}
    for chunk in records(folder, RoundsRecord):
        found.setdefault(chunk.batch, []).append(len(chunk.order))
    return found


def test_the_last_chunk_of_a_batch_is_what_is_left(tmp_path):
    """20 rounds in chunks of 8, where no load gets narrow."""
    policy = dataclasses.replace(POLICY, chunk_rounds=8, load_se=0.0, max_attempts=99)
    run(tmp_path, device(noise=0.5), policy)
    assert set(map(tuple, rounds_of_batches(tmp_path).values())) == {(8, 8, 4)}


@pytest.mark.parametrize(("share", "rounds"), [(1.01, 10), (0.99, 20)])
def test_a_batch_ends_once_its_widest_load_is_narrow(tmp_path, share, rounds):
    """After 10 rounds if the policy asks for 1 % more than the widest standard error then, not if for 1 % less."""
    policy = dataclasses.replace(POLICY, min_passes=1, max_passes=1, chunk_rounds=10, max_attempts=99)
    known = run(tmp_path / "known", device(noise=0.05), dataclasses.replace(policy, max_rounds=10))
    first = [load for load in known.estimates.loads if load.batch == 0 and load.model != "model00"]
    asked = dataclasses.replace(policy, load_se=share * max(load.se for load in first))
    run(tmp_path / "asked", device(noise=0.05), asked)
    assert sum(rounds_of_batches(tmp_path / "asked")[0]) == rounds


def test_batches_are_twice_as_long_where_only_calls_are_missing(tmp_path):
    """Three passes of 20 rounds, each with one call that counts, leave 30 of 90; the next batch has 40 rounds."""
    policy = dataclasses.replace(POLICY, half_width=0.0, load_se=0.0, calls=90, max_attempts=99)
    run(tmp_path, device(noise=0.5), policy)
    passes = {batch.batch: batch.pass_index for batch in records(tmp_path, BatchRecord)}
    rounds = {(passes[batch], sum(chunks)) for batch, chunks in rounds_of_batches(tmp_path).items()}
    assert rounds == {(0, 20), (1, 20), (2, 20), (3, 40)}


def test_load_order_differs_between_batches(tmp_path):
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


def test_pass_loads_every_model(tmp_path):
    result = run(tmp_path, device(), dataclasses.replace(POLICY, half_width=1e-9))
    loads = {name: ratio.loads for name, ratio in result.estimates.ratios.items() if name != "model00"}
    assert set(loads.values()) == {3}


def test_stops_after_min_passes(tmp_path):
    narrow = run(tmp_path / "a", device(), dataclasses.replace(POLICY, max_passes=9, half_width=0.5))
    broke = run(
        tmp_path / "b", device(), dataclasses.replace(POLICY, max_passes=9, half_width=0.0), budget_s=0.0
    )
    for result in (narrow, broke):
        assert result.estimates.ratios["model01"].loads == POLICY.min_passes


def test_lost_device_resumes_in_a_new_segment(tmp_path):
    fake = device(lose_after={2, 5, 9})
    result = run(tmp_path, fake)
    assert fake.connections == 4
    found = visits(tmp_path)
    assert len(found) == len(set(found))
    segments = {r.segment for r in read_log(tmp_path / "journal.jsonl") if isinstance(r, BatchRecord)}
    assert segments == {0, 1}
    assert set(result.estimates.ratios) == set(TRUE_MS)


@pytest.mark.parametrize("killed_at", [1, 4, 8])
def test_killed_run_keeps_its_schedule(tmp_path, killed_at):
    policy = dataclasses.replace(POLICY, load_se=-1.0)
    quiet = {"noise": 0.0, "load_sd": 0.0}  # no batch is repeated by chance
    run(tmp_path / "whole", device(**quiet), policy)
    always_lost = range(killed_at, killed_at + 4)
    with pytest.raises(AgentLostError):
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


def test_two_references_that_disagree_reject_the_batch(tmp_path):
    with raises("batch_rejected"):
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
def test_other_conditions_are_refused(tmp_path, change, named):
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
    with raises("conditions_changed"):
        run(tmp_path, device())


def test_one_model_alone_is_measured_against_itself(tmp_path):
    files = {"model00": ModelFile(tmp_path / "x", SHA["model00"])}
    result = run(tmp_path, device(), models=ModelSet(files, "model00", "0" * 64, 0))
    assert result.ms("model00")[0] == result.reference.ms


def test_load_times_come_with_the_measurement(tmp_path):
    result = run(tmp_path, device())
    assert {name: times.load_ms for name, times in result.loads.items()} == dict.fromkeys(TRUE_MS, 0.001)


@pytest.mark.parametrize(("share", "loads"), [(1.01, 2), (0.99, 3)])
def test_half_of_an_interval_is_compared_with_the_half_width(tmp_path, share, loads):
    """Narrow after two passes if the policy asks for 1 % more than the widest half, not if for 1 % less."""
    policy = dataclasses.replace(POLICY, min_passes=2, max_passes=2, half_width=0.0)
    ratios = run(tmp_path / "known", device(), policy).estimates.ratios.values()
    widest = max((ratio.high - ratio.low) / 2 for ratio in ratios)
    policy = dataclasses.replace(policy, max_passes=3, half_width=share * widest)
    assert run(tmp_path / "asked", device(), policy).estimates.ratios["model01"].loads == loads


class OneChoice:
    """Adds the last two models after the first passes."""

    def __init__(self, files):
        self.files = files

    def choose(self, pass_index, estimation, half_width):
        if "model08" in estimation.ratios or pass_index > 2:
            return None
        chosen = [ChosenModel(model=name, arch="{}", artifact=SHA[name]) for name in ("model07", "model08")]
        return ChoiceRecord(pass_index=pass_index, models=chosen, reason="a test")

    def take(self, choice):
        return {chosen.model: self.files[chosen.model] for chosen in choice.models}


def test_chosen_models_are_alone_for_their_first_passes_only(tmp_path):
    """Two passes of the six first models, two of the two chosen, then one of all eight; the reference always."""
    files = {name: ModelFile(tmp_path / name, sha) for name, sha in SHA.items()}
    first = ModelSet({name: files[name] for name in list(files)[:7]}, "model00", "0" * 64, seed=3)
    policy = dataclasses.replace(POLICY, batch_models=8, min_passes=2, max_passes=3, half_width=0.0)
    run(tmp_path, device(), policy, models=first, planner=OneChoice(files))
    measured = {batch.pass_index: set(batch.slots) for batch in records(tmp_path, BatchRecord)}
    early, late = {f"model0{n}" for n in range(7)}, {"model00", "model07", "model08"}
    assert [measured[number] for number in sorted(measured)] == [early, early, late, late, early | late]


def test_the_last_batches_judge_the_next():
    """Of 78 closed batches the last 39: their spread of 1, not the 0.01 of those before, makes 0.5 ordinary."""
    differences = [
        AaDifference(n, 0, (-1) ** n * (0.01 if n < AA_MEMORY else 1.0), 1e-3, 20)
        for n in range(2 * AA_MEMORY)
    ]
    differences.append(AaDifference(2 * AA_MEMORY, 0, 0.5, 1e-3, 20))

    segment: Any = SimpleNamespace(aa_difference=lambda _: differences[-1])

    def estimation(batches):
        return SimpleNamespace(
            aa_history=history_of([differences[n] for n in sorted(batches)], 1e-3),
            aa_interval=lambda history: LatencyEstimates("r", [segment], []).aa_interval(history),
        )

    log: Any = SimpleNamespace(
        throttle_reason=lambda _: "",
        longest_segment=lambda _: 20,
        closed_batches=lambda: set(range(2 * AA_MEMORY)),
        estimation=estimation,
        append=lambda _: None,
    )
    assert close_batch(log, 2 * AA_MEMORY).kept


def test_batches_of_a_pass_are_of_equal_size_and_not_larger_than_allowed() -> None:
    groups = pass_groups([f"m{number}" for number in range(7)], seed=0, pass_index=0, batch_models=3)
    assert sorted(map(len, groups)) == [2, 2, 3]
    assert {model for group in groups for model in group} == {f"m{number}" for number in range(7)}
