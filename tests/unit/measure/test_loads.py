"""Load times from a journal's batches."""

from orchestrator.journal.conditions import LoadTimes, load_times
from orchestrator.journal.records import BatchRecord


def batch(slots, load_ns, **more):
    return BatchRecord(
        batch=0,
        segment=0,
        pass_index=0,
        group=0,
        attempt=0,
        slots=slots,
        copies=[0] * len(slots),
        load_ns=load_ns,
        **more,
    )


def test_first_loads_and_compiling_are_separate():
    records = [
        batch(["a", "b"], [9_000_000, 8_000_000], compile_ns=[70_000_000, None], cached=[False, True]),
        batch(["a", "b"], [2_000_000, 4_000_000], compile_ns=[None, None], cached=[True, True]),
        batch(["a"], [4_000_000], compile_ns=[None], cached=[True]),
    ]
    assert load_times(records) == {"a": LoadTimes(3.0, 9.0, 70.0), "b": LoadTimes(6.0, None, None)}


def test_single_load_is_the_load_time():
    assert load_times([batch(["a"], [9_000_000], cached=[False])]) == {"a": LoadTimes(9.0, 9.0, None)}


def test_runtimes_that_do_not_tell_and_older_journals():
    assert load_times([batch(["a"], [5_000_000]), batch(["a"], [7_000_000], cached=[None])]) == {
        "a": LoadTimes(6.0, None, None)
    }


def test_slow_load_counts_as_first():
    """Core ML's preparation for a unit was thrown away between the second and the third load."""
    slow, quick = 3_000_000_000, 100_000_000
    times = [(slow, False), (quick, True), (slow + 200_000_000, True), (quick + 20_000_000, True)]
    records = [batch(["a"], [load_ns], cached=[cached]) for load_ns, cached in times]
    assert load_times(records) == {"a": LoadTimes(110.0, 3100.0, None)}


def test_short_delayed_load_is_not_first():
    records = [batch(["a"], [load_ns], cached=[True]) for load_ns in (2_000_000, 40_000_000, 3_000_000)]
    assert load_times(records) == {"a": LoadTimes(3.0, None, None)}
    untold = [batch(["a"], [load_ns]) for load_ns in (100_000_000, 3_000_000_000)]
    assert load_times(untold) == {"a": LoadTimes(1550.0, None, None)}
