"""Leases by hand: who has which job, and when a job is nobody's fault but its own."""

import pytest

from luts.format.errors import BlocktimeError
from orchestrator.fleet.executor import MAX_LOSSES, LeaseEndedError, Leases

WHY = BlocktimeError("the cable was pulled")


@pytest.fixture
def now_s():
    return [0.0]


@pytest.fixture
def leases(now_s):
    return Leases(60.0, lambda: now_s[0])


def test_returned_task_is_next(leases):
    leases.put(["first", "second", "third"])
    a, b = leases.take("a"), leases.take("b")
    assert (a.task, b.task) == ("first", "second")
    leases.give_back(b, WHY)
    assert leases.take("c").task == "second"
    leases.done(a)
    assert leases.take("a").task == "third"
    assert leases.take("b", 0) is None, "nothing waits"
    assert not leases.wait(0)


def test_expired_lease_goes_to_another_unit(leases, now_s):
    leases.put(["job"])
    late = leases.take("a")
    now_s[0] = 60.0
    assert leases.expire() == []
    now_s[0] = 60.1
    assert leases.expire() == [late]
    again = leases.take("b")
    assert (leases.writes(late), leases.writes(again)) == (False, True)
    with pytest.raises(LeaseEndedError):
        leases.done(late)
    leases.give_back(late, WHY)
    assert leases.take("a", 0) is None, "a late return is not a second job"
    leases.done(again)
    assert leases.wait(0)


def test_tasks_without_progress_end_the_run(leases):
    leases.put(["job"])
    for _ in range(MAX_LOSSES - 1):
        leases.give_back(leases.take("a"), WHY)
    forward = leases.take("a")
    leases.writes(forward)
    leases.give_back(forward, WHY)
    leases.give_back(leases.take("a"))  # nobody's fault
    for _ in range(MAX_LOSSES - 1):
        leases.give_back(leases.take("a"), WHY)
    assert not leases.wait(0)
    leases.give_back(leases.take("a"), WHY)
    with pytest.raises(BlocktimeError, match="the cable was pulled"):
        leases.wait(0)


def test_a_closed_run_gives_and_takes_nothing(leases):
    leases.put(["job", "other"])
    lease = leases.take("a")
    leases.close()
    assert leases.take("b") is None
    assert not leases.writes(lease)
    with pytest.raises(LeaseEndedError):
        leases.wait(0)
    leases.give_back(lease, WHY)
