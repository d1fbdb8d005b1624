"""A crew of units in this process: whatever happens to units, all is measured once, and the journal says where."""

import math
import threading
from collections import Counter, defaultdict

import pytest

from orchestrator.devices.lock import DeviceBusyError
from orchestrator.fleet.executor import FleetExecutor, FleetLimits
from orchestrator.fleet.units import UnfitUnitError
from orchestrator.journal.log import MeasurementLog, read_log
from orchestrator.journal.records import BatchRecord, EndRecord, RoundsRecord
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import make_header, measure_with
from orchestrator.wire.errors import AgentLostError, DeviceError
from tests.support.errors import raises
from tests.support.fake_device import POLICY, QUIET, VARIANT, FakeClient, device, subject

QUICK = FleetLimits(lease_s=600, no_units_s=600, rest_s=0.01, busy_s=0.01)


class FakeUnit:
    """A unit in this process; `cut` breaks its client, as when its host is gone."""

    def __init__(self, serial, fake):
        self.serial, self.device, self.closed = serial, fake, threading.Event()

    def held(self):
        return threading.Lock()

    def close(self):
        self.closed.set()


class Fleet:
    """`openers` of units 'a', 'b', ...; a function of `on_run` is called at every run of its unit."""

    def __init__(self, tmp_path, count, **options):
        self.folder, self.messages = tmp_path, []
        self.fakes = {
            serial: device(seed=number, **options) for number, serial in enumerate("abcdefgh"[:count])
        }
        self.opened = Counter()
        self.away = set()

    def opener(self, serial):
        def open_unit(taken):
            self.opened[serial] += 1
            if serial in self.away:
                raise DeviceError("no cable; plug it in")
            return FakeUnit(serial, self.fakes[serial])

        return open_unit

    def measure(self, limits=QUICK, policy=POLICY, check=lambda *_: None, clock_s=lambda: 0.0):
        openers = [self.opener(serial) for serial in self.fakes]
        crew = FleetExecutor("pixel8", openers, limits, self.messages.append, clock_s)
        measured = subject(self.folder)
        with crew:
            crew.open()
            hello = next(iter(self.fakes.values())).connect().hello()
            with MeasurementLog(
                self.folder / "journal.jsonl", make_header(hello, VARIANT, measured, policy, False)
            ) as log:
                crew.prepare(log, VARIANT, check)
                return measure_with(
                    crew, log, hello, measured, policy, EngineOptions(budget_s=1e9, progress=lambda *_: None)
                )

    def records(self):
        return read_log(self.folder / "journal.jsonl")


def on_run(fake, number, act):
    """Calls `act` instead of the run of that number."""
    real = fake.connect

    class Client(FakeClient):
        def run(self, *arguments, **options):
            if fake.runs + 1 == number:
                fake.runs += 1
                act()
            return super().run(*arguments, **options)

    def connect():
        real()
        return Client(fake)

    fake.connect = connect


def assert_whole(fleet, passes=None):
    """Every model has one kept load in every pass, every round is there once, and one unit made each segment."""
    records = fleet.records()
    kept = {record.batch for record in records if isinstance(record, EndRecord) and record.kept}
    batches = {record.batch: record for record in records if isinstance(record, BatchRecord)}
    loads = Counter(
        (batches[number].pass_index, model) for number in kept for model in set(batches[number].slots[2:])
    )
    passes = POLICY.max_passes if passes is None else passes
    assert set(loads.values()) == {1}
    assert len(loads) == 8 * passes
    rounds = defaultdict(list)
    for record in records:
        if isinstance(record, RoundsRecord):
            rounds[record.batch] += range(record.first_round, record.first_round + len(record.order))
    for batch, numbers in rounds.items():
        assert numbers == list(range(len(numbers))), f"batch {batch} has a round twice or lacks one"
    assert all(record.unit for record in records if isinstance(record, BatchRecord))


def units_of(fleet):
    return {record.unit for record in fleet.records() if isinstance(record, BatchRecord)}


def test_units_share_the_work(tmp_path):
    fleet = Fleet(tmp_path, 2)
    both = threading.Barrier(2, timeout=300)
    for fake in fleet.fakes.values():
        on_run(fake, 1, both.wait)  # neither goes on before the other is at work too
    measurement = fleet.measure()
    assert_whole(fleet)
    assert units_of(fleet) == {"a", "b"}
    truth = fleet.fakes["a"].true_ms
    for name, file in subject(tmp_path).files.items():
        ratio = measurement.estimates.ratios[name]
        assert ratio.log_ratio == pytest.approx(
            math.log(truth[file.sha256] / truth[subject(tmp_path).files["model00"].sha256]),
            abs=0.02,
        )


def test_another_unit_continues_a_lost_batch(tmp_path):
    fleet = Fleet(tmp_path, 2)
    fleet.away.add("b")

    def vanish():
        fleet.away ^= {"a", "b"}
        fleet.fakes["a"].connect = no_connection
        raise AgentLostError("its host was lost")

    on_run(fleet.fakes["a"], 2, vanish)
    fleet.measure()
    assert_whole(fleet)
    segments = defaultdict(list)
    for record in fleet.records():
        if isinstance(record, BatchRecord):
            segments[record.batch].append(record.unit)
            assert record.copies[:2] == [0, 1]
    assert ["a", "b"] in segments.values()
    assert any("a is out" in line for line in fleet.messages)


def test_hung_unit_loses_its_lease(tmp_path):
    fleet = Fleet(tmp_path, 2)
    fleet.away.add("b")
    free, now_s = threading.Event(), [0.0]

    def hang():
        now_s[0] = QUICK.lease_s + 1
        fleet.away.discard("b")
        fleet.away.add("a")
        assert free.wait(300)

    on_run(fleet.fakes["a"], 2, hang)
    on_run(fleet.fakes["b"], 5, free.set)
    fleet.measure(clock_s=lambda: now_s[0])
    assert_whole(fleet)
    assert any("a hangs" in line for line in fleet.messages)


def test_unfit_unit_is_excluded(tmp_path):
    fleet = Fleet(tmp_path, 2)
    fleet.fakes["b"].os_build = "2"

    def check(serial, hello, fixed):
        if hello.device.os_build != "1":
            raise UnfitUnitError(f"{serial} has another system")

    fleet.measure(check=check)
    assert_whole(fleet)
    assert units_of(fleet) == {"a"}


def test_busy_unit_is_retried(tmp_path):
    fleet = Fleet(tmp_path, 1)
    busy = [DeviceBusyError("fake is being measured by process 1")] * 3
    real = FakeUnit.held
    fleet.opener("a")

    class Busy(FakeUnit):
        def held(self):
            if busy:
                raise busy.pop()
            return real(self)

    fleet.opener = lambda serial: lambda taken: Busy(serial, fleet.fakes[serial])
    fleet.measure()
    assert_whole(fleet)
    assert not busy
    none = Fleet(tmp_path / "none", 2)
    none.away |= {"a", "b"}
    with raises("no_units"):
        none.measure()


def test_run_without_units_ends_and_resumes(tmp_path):
    fleet = Fleet(tmp_path, 1)

    def vanish():
        fleet.away.add("a")
        raise AgentLostError("its host was lost")

    on_run(fleet.fakes["a"], 6, vanish)
    fleet.fakes["a"].lose_after = set(range(7, 12))
    with raises("no_units"):
        fleet.measure(FleetLimits(no_units_s=0.01, rest_s=0.01))
    before = sum(isinstance(record, RoundsRecord) for record in fleet.records())
    again = Fleet(tmp_path, 2)
    again.measure()
    assert_whole(again)
    assert before == 5


def test_what_no_unit_can_do_ends_the_run(tmp_path):
    hot = {**QUIET, "thermal_state": "critical"}
    fleet = Fleet(tmp_path, 2, states=[QUIET, hot] * 1000)
    with raises("batch_rejected"):
        fleet.measure()


def no_connection():
    raise DeviceError("its host was lost")
