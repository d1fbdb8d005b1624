"""Models that a device can't run, and devices that are in no state to run any."""

from dataclasses import replace

import pytest

from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import throttle_reason
from orchestrator.journal.log import read_log
from orchestrator.journal.records import BatchRecord, FailureRecord, MeasurementRejectedError
from orchestrator.measure import readiness
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.session import check_runtime, default_threads, threads_warning
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import DeviceState
from tests.support import fake_device
from tests.support.errors import raises
from tests.support.fake_device import POLICY, QUIET, SHA, FakeClient, FakeDevice

TRUE_MS = {name: ms for name, ms in fake_device.TRUE_MS.items() if name < "model07"}


def device(
    *, deadly=(), deadly_loads=(), deadly_company=(), refused=(), hungry=(), unready=(), lose_after=()
):
    fake = FakeDevice({SHA[name]: ms for name, ms in TRUE_MS.items()}, lose_after=lose_after)
    fake.deadly, fake.refused = {SHA[name] for name in deadly}, {SHA[name] for name in refused}
    fake.hungry = {SHA[name]: loads for name, loads in dict(hungry).items()}
    fake.deadly_loads = {SHA[name] for name in deadly_loads}
    fake.deadly_company = {SHA[name] for name in deadly_company}
    fake.unready = list(unready)
    return fake


def state(**changes):
    return DeviceState.model_validate(QUIET | changes)


@pytest.mark.parametrize(
    ("before", "after", "cores", "reported"),
    [
        ({"throttle_count": 3}, {"throttle_count": 4}, "", "the processor throttled"),
        ({"throttle_count": 3}, {"throttle_count": 3}, "", ""),
        ({"throttle_count": None}, {"throttle_count": 4}, "", ""),
        ({}, {"thermal_state": "critical"}, "", "thermal state critical"),
        ({}, {"thermal_state": "critical", "caveats": ["throttled"]}, "", ""),
        ({"thermal_state": "serious"}, {}, "", "thermal state serious"),
        ({}, {"thermal_state": "serious", "caveats": ["throttled"]}, "", ""),
        ({}, {"thermal_state": "fair"}, "", ""),
        ({"thermal_headroom": 0.5}, {"thermal_headroom": 0.74}, "", "thermal headroom 0.74"),
        ({}, {"thermal_headroom": 0.74, "caveats": ["throttled"]}, "", ""),
        ({}, {"low_power_mode": True}, "", "low-power mode was on"),
        ({"low_power_mode": True}, {}, "", "low-power mode was on"),
        ({}, {"low_power_mode": True, "caveats": ["power_save"]}, "", ""),
        ({"low_power_mode": True, "caveats": ["power_save"]}, {}, "", ""),
        ({"cores": "4-8"}, {"cores": "4-8"}, "4-8", ""),
        ({"cores": "4-8"}, {"cores": "0-8"}, "", ""),
        ({"cores": "4-8"}, {"cores": "0-8"}, "4-8", "threads could run on cores 0-8 and not on 4-8 alone"),
    ],
)
def test_reason_why_what_ran_between_two_states_does_not_count(before, after, cores, reported):
    assert throttle_reason(state(**before), state(**after), cores) == reported


@pytest.mark.parametrize(("percent", "charging", "passes"), [(24.9, True, True), (25.0, False, False)])
def test_a_phone_below_a_quarter_of_its_charge_may_be_charged(percent, charging, passes):
    battery = {"percent": percent, "charging": charging, "celsius": None}
    assert readiness.may_pass(state(battery=battery)) is passes


def test_a_warm_phone_may_cool():
    assert readiness.may_pass(state(thermal_headroom=0.74))


def run(tmp_path, fake, notes=None, policy=POLICY):
    files = {name: ModelFile(tmp_path / name, SHA[name]) for name in TRUE_MS}
    models = ModelSet(files, "model00", "0" * 64, seed=3)
    noted = [] if notes is None else notes
    return fake_device.run(
        tmp_path, fake, policy, models=models, progress=lambda message, *_: noted.append(message)
    )


def test_refused_model_is_excluded(tmp_path):
    notes = []
    result = run(tmp_path, device(refused={"model03"}), notes)
    assert set(result.estimates.ratios) == set(TRUE_MS) - {"model03"}
    assert list(result.failures) == ["model03"]
    assert "bad_model" in result.failures["model03"]
    assert any("excluded model03" in message for message in notes)


def test_crashing_model_is_found(tmp_path):
    fake = device(deadly={"model02", "model05"})
    result = run(tmp_path, fake)
    assert set(result.failures) == {"model02", "model05"}
    assert set(result.estimates.ratios) == set(TRUE_MS) - {"model02", "model05"}
    again = device(deadly={"model02", "model05"})
    assert run(tmp_path, again).failures == result.failures
    assert again.runs == 0


def test_crash_during_load(tmp_path):
    """One death in the batch, and two alone to be sure."""
    notes = []
    fake = device(deadly_loads={"model02"})
    result = run(tmp_path, fake, notes)
    assert list(result.failures) == ["model02"]
    assert result.failures["model02"] == "the agent crashed or hung 2 times out of 2 that it ran alone"
    assert set(result.estimates.ratios) == set(TRUE_MS) - {"model02"}
    assert fake.deaths == 3
    assert "the agent crashed or hung while loading model02: trying that model alone" in notes


def test_many_crashing_models(tmp_path):
    deadly = {"model01", "model02", "model03", "model04", "model05"}
    result = run(tmp_path, device(deadly_loads=deadly), policy=replace(POLICY, batch_models=8))
    assert set(result.failures) == deadly
    assert set(result.estimates.ratios) == {"model00", "model06"}


def test_models_that_crash_together(tmp_path):
    """Nobody can tell which of the batch it is, so that all of it is named and left out."""
    (tmp_path / "quiet").mkdir()
    run(tmp_path / "quiet", device())
    batch = next(r for r in read_log(tmp_path / "quiet/journal.jsonl") if isinstance(r, BatchRecord))
    company = batch.slots[2:]
    fake = device(deadly_company=company[:2])
    result = run(tmp_path, fake)
    assert set(result.failures) == set(company)
    assert set(result.estimates.ratios) == set(TRUE_MS) - set(company)
    names = ", ".join(["model00", *company])
    expected = (
        f"the agent crashed or hung 3 times with {names} loaded together, though with none of them alone"
    )
    assert set(result.failures.values()) == {expected}
    assert fake.deaths == 3


def test_a_model_of_minutes_is_not_a_hang(tmp_path):
    fake = device()
    fake.true_ms[SHA["model02"]] = 300_000.0
    fake.lose_after = {20}
    result = run(tmp_path, fake)
    assert result.failures == {}
    assert set(result.estimates.ratios) == set(TRUE_MS)
    assert fake.deaths == 2, "its latency is known once it has run alone, after a loss of the connection too"


def test_a_model_without_an_end_is_a_hang(tmp_path):
    fake = device()
    fake.true_ms[SHA["model02"]] = 1e3 * readiness.ALONE_SILENCE_S * 1.1
    result = run(tmp_path, fake)
    assert list(result.failures) == ["model02"]
    assert fake.deaths == 4


def test_a_pulled_cable_is_nobodys_failure(tmp_path):
    result = run(tmp_path, device(lose_after={2, 3, 4}))
    assert result.failures == {}
    assert set(result.estimates.ratios) == set(TRUE_MS)


@pytest.mark.parametrize("how", ["refused", "deadly"])
def test_a_reference_that_fails_ends_the_measurement(tmp_path, how):
    with raises("reference_failed"):
        run(tmp_path, device(**{how: {"model00"}}))
    assert not any(isinstance(record, FailureRecord) for record in read_log(tmp_path / "journal.jsonl"))


@pytest.fixture
def naps(monkeypatch):
    """Seconds that the readiness loop slept, without sleeping; its clock advances by them."""
    slept = []
    monkeypatch.setattr(readiness, "_sleep", slept.append)
    monkeypatch.setattr(readiness, "_clock", lambda: sum(slept))
    return slept


HOT = QUIET | {"thermal_state": "serious"}


def test_waits_for_a_device_that_is_not_ready(tmp_path, naps):
    notes = []
    result = run(tmp_path, device(unready=[HOT] * 3), notes)
    assert len(naps) == 3
    assert [m for m in notes if "waiting" in m] == ["waiting, the phone is hot; let it cool"]
    assert result.batches_rejected == 0


def test_waiting_ends(tmp_path, naps):
    with raises("device_not_ready"):
        run(tmp_path, device(unready=[HOT] * 1000))
    assert readiness.WAIT_S <= sum(naps) < 1.1 * readiness.WAIT_S


def test_a_moment_without_memory_is_waited_for(tmp_path, naps):
    notes, fake = [], device(hungry={"model00": 3, "model04": 2})
    result = run(tmp_path, fake, notes)
    assert result.failures == {}
    assert set(result.estimates.ratios) == set(TRUE_MS)
    assert len(naps) == 5
    (first, *_) = [message for message in notes if "memory" in message]
    assert first == "waiting for free memory, out_of_memory: the model needs about 9 MiB and 8 MiB are free"
    assert fake.most_loaded == 2 + 3, "what was loaded before the failure is unloaded before the next try"


def test_a_model_that_never_fits_is_left_out(tmp_path, naps):
    result = run(tmp_path, device(hungry={"model04": 10**6}))
    assert list(result.failures) == ["model04"]
    assert "out_of_memory" in result.failures["model04"]
    assert set(result.estimates.ratios) == set(TRUE_MS) - {"model04"}
    assert readiness.MEMORY_WAIT_S <= sum(naps) < 1.2 * readiness.MEMORY_WAIT_S


def test_a_reference_without_memory_keeps_what_was_measured(tmp_path, naps):
    with raises("out_of_memory"):
        run(tmp_path, device(hungry={"model00": 10**6}))
    assert readiness.WAIT_S <= sum(naps) < 1.1 * readiness.WAIT_S
    assert not any(isinstance(record, FailureRecord) for record in read_log(tmp_path / "journal.jsonl"))


CHARGED = {"percent": 80.0, "charging": False, "celsius": None}


@pytest.mark.parametrize("state", [QUIET, QUIET | {"battery": CHARGED}])
def test_permanent_reason_is_not_waited_for(tmp_path, naps, state):
    with pytest.raises(MeasurementRejectedError):
        run(tmp_path, device(unready=[state]))
    assert naps == []


def test_an_empty_battery_can_be_charged(tmp_path, naps):
    run(tmp_path, device(unready=[QUIET | {"battery": CHARGED | {"percent": 14.0}}]))
    assert len(naps) == 1


def test_app_is_brought_to_front(tmp_path, naps):
    hidden = device(unready=[QUIET | {"foreground": False}] * 2)
    run(tmp_path, hidden)
    assert (hidden.shown, naps) == (2, [readiness._SHOW_S] * 2)


def test_app_that_stays_in_background(tmp_path, naps, monkeypatch):
    def cannot(self):
        raise DeviceError("the screen stays off")

    monkeypatch.setattr(FakeDevice, "bring_to_front", cannot)
    run(tmp_path, device(unready=[QUIET | {"foreground": False}] * 2))
    assert naps == [readiness._POLL_S] * 2


def test_reconnect_brings_app_to_front(tmp_path):
    left = device(lose_after=[2])
    left.stands = QUIET | {"foreground": False}
    run(tmp_path, left)
    assert left.shown == left.connections == 2


def test_a_phone_chooses_its_own_number_of_threads():
    fake = device()
    chosen = default_threads(FakeClient(fake).hello(), Variant("executorch", "xnnpack", "fp32", 1))
    assert chosen.name == "executorch-xnnpack-fp32-t2"
    assert default_threads(FakeClient(fake).hello(), Variant("coreml", "all")) == Variant("coreml", "all")


@pytest.mark.parametrize(
    ("variant", "code"),
    [
        (Variant("coreml", "all"), "unsupported_runtime"),
        (Variant("executorch", "vulkan", "fp32", 1), "unsupported_backend"),
        (Variant("executorch", "xnnpack", "fp32", 8), "too_many_threads"),
        (Variant("executorch", "xnnpack", "fp32", 1, "0"), "unsupported_option"),
    ],
)
def test_refused_variants(tmp_path, variant, code):
    with raises(code):
        fake_device.run(tmp_path, device(), variant=variant)
    for backend in ("portable", "xnnpack"):
        check_runtime("pixel8", FakeClient(device()).hello(), Variant("executorch", backend, "fp32", 1))


def test_threads_warning():
    hello = FakeClient(device()).hello()
    assert not threads_warning("pixel8", hello, Variant("executorch", "xnnpack", "fp32", 2))
    assert "3 threads are more than the default of 2 on pixel8" in threads_warning(
        "pixel8", hello, Variant("executorch", "xnnpack", "fp32", 3)
    )


def test_runtime_without_thread_option(monkeypatch):
    fake = device()
    hello = FakeClient(fake).hello()
    without = hello.runtimes["executorch"].model_copy(update={"options": {}})
    silent = hello.model_copy(update={"runtimes": {"executorch": without}})
    monkeypatch.setattr(FakeClient, "hello", lambda self: silent)
    chosen = default_threads(FakeClient(fake).hello(), Variant("executorch", "xnnpack", "fp32", 2))
    assert (chosen.name, chosen.load_options) == ("executorch-xnnpack-fp32-t0", {})
    assert Variant.parse(chosen.name) == chosen
    check_runtime("fake", silent, chosen)
    with raises("unsupported_option"):
        check_runtime("fake", silent, Variant("executorch", "xnnpack", "fp32", 2))
