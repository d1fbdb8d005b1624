"""The simulated machine behind the agent's interfaces, without a process."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.agent.device import agent_info
from orchestrator.agent.store import ModelStore
from orchestrator.agent.timing import AdaptiveWarmup, TimingOptions, time_schedule
from orchestrator.devices.host import scenario_of, simulated_program
from orchestrator.export.artifacts.spec import Variant
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.device import (
    MAX_MODEL_BYTES,
    SCENARIOS,
    ClockRamp,
    GroundTruth,
    Noise,
    Scenario,
    Throttling,
    TrueCosts,
    read_model,
    write_model,
)
from orchestrator.simulate.machine import RUNTIME, Machine
from orchestrator.wire.errors import AgentError
from tests.support.errors import raises

BLOCKS = ("conv(in=3,out=16,k=3,s=2)@64", "head.fc(in=16,classes=10)@32")
PLAIN = Scenario(name="plain", cores=2)


def run(machine: Machine, models, order, warmup=0) -> np.ndarray:
    return time_schedule(models, order, warmup, lambda _: True, machine.clock_ns)


def test_the_agents_own_loop_times_the_truth(tmp_path) -> None:
    machine = Machine(PLAIN)
    path = write_model(BLOCKS, tmp_path).path
    one, two = (machine.load(path, {"threads": threads}) for threads in (1, 2))
    samples = run(machine, [one, two], [[0, 1], [1, 0]], warmup=3)
    expected = [GroundTruth(PLAIN.costs, threads).latency_ms(BLOCKS) * 1e6 for threads in (1, 2)]
    assert samples.tolist() == [pytest.approx(expected, abs=1), pytest.approx(expected[::-1], abs=1)]
    assert machine.clock_ns() == pytest.approx(2 * 50e6 + 5 * sum(expected), abs=10)


def test_load_levels_and_cold_caches(tmp_path) -> None:
    noise = Noise(load_sd=0.1, cold_share=0.5)
    machine = Machine(PLAIN.model_copy(update={"noise": noise, "noise_seed": 1}))
    path = write_model(BLOCKS, tmp_path).path
    first, second = machine.load(path, {}), machine.load(path, {})
    samples = run(machine, [first, second], [[0, 0, 1, 1, 0, 0]])[0].astype(float)
    cold, warm = samples[::2], samples[1::2]
    assert cold / warm == pytest.approx([1.5] * 3, rel=1e-5)
    assert warm[0] == warm[2]
    assert abs(np.log(warm[1] / warm[0])) > 0.01


def test_timed_warmup_raises_the_clock(tmp_path) -> None:
    idles = PLAIN.model_copy(update={"noise": Noise(clock_ramp=ClockRamp()), "trip_ms": 5.0})
    path, machine = write_model(BLOCKS, tmp_path).path, Machine(idles)
    model = machine.load(path, {})
    quiet_ns = GroundTruth(PLAIN.costs, 1).latency_ms(BLOCKS) * 1e6

    def slowest_of_a_run(warmup: int, ramp: AdaptiveWarmup | None) -> float:
        machine.read_state()
        order = [[0, 0]] * 10
        samples = time_schedule(
            [model], order, warmup, lambda _: True, machine.clock_ns, TimingOptions(warmup=ramp)
        )
        machine.read_state()
        return samples.max() / quiet_ns

    assert slowest_of_a_run(warmup=5, ramp=None) > 1.5, "five visits are not enough"
    assert slowest_of_a_run(warmup=0, ramp=None) > 1.5, "and the next run begins as slowly"
    for _ in range(3):
        assert slowest_of_a_run(warmup=0, ramp=AdaptiveWarmup(2 * 10**9)) < 1.01


@pytest.mark.parametrize("reported", [True, False])
def test_simulated_thermal_state(reported, tmp_path) -> None:
    case = Throttling(tau_s=0.01, reported=reported)
    machine = Machine(PLAIN.model_copy(update={"noise": Noise(throttling=case)}))
    model = machine.load(write_model(BLOCKS, tmp_path).path, {})
    states = [machine.read_state()]
    for _ in range(120):
        model.execute()
        states.append(machine.read_state())
    output = [state.thermal_state for state in states]
    if not reported:
        assert set(output) == {None}
        assert not states[-1].thermal_zones
        assert states[-1].thermal_headroom is None
    else:
        assert output[0] == "nominal"
        assert set(output) == {"nominal", "fair", "serious"}
        assert states[0].thermal_headroom == pytest.approx(0.0)
        assert states[0].thermal_zones[0].celsius == case.ambient_c
    before_ns = machine.clock_ns()
    model.close()
    waited_s = (machine.clock_ns() - before_ns) / 1e9
    assert waited_s == (PLAIN.cooling_s if reported else PLAIN.pause_s), (
        "it rests as long as a client would wait"
    )
    assert machine.read_state().thermal_state in (None, "nominal")


def test_what_it_refuses(tmp_path) -> None:
    machine, file = Machine(PLAIN), write_model(BLOCKS, tmp_path)
    for options in ({"threads": 3}, {"gpu": True}):
        with raises("bad_option"):
            machine.load(file.path, options)
    (tmp_path / "foreign").write_bytes(b"\x00\x00ET12")
    with pytest.raises(AgentError) as refused:
        machine.load(tmp_path / "foreign", {})
    assert refused.value.code == "bad_model"
    with raises("bad_input"):
        machine.load(file.path, {}).prepare([np.zeros(1)])


def test_simulated_model_files(tmp_path) -> None:
    file = write_model(BLOCKS, tmp_path)
    assert (
        write_model(BLOCKS, tmp_path / "again").sha256
        == file.sha256
        != write_model(BLOCKS[:1], tmp_path).sha256
    )
    assert read_model(file.path) == BLOCKS
    content = file.path.read_text()
    for damaged, words in (
        (content.replace("head.fc", "head.xx"), "unknown block kind"),
        (content.replace("simulated-model", "model"), "not a simulated model"),
        ("[" * (MAX_MODEL_BYTES + 1), f"over {MAX_MODEL_BYTES} bytes"),
    ):
        (tmp_path / "damaged").write_text(damaged)
        with pytest.raises(InvalidArtifactError, match=words):
            read_model(tmp_path / "damaged")


def test_simulated_agent_info(tmp_path) -> None:
    store = ModelStore(tmp_path)
    agent = simulated_agent(PLAIN, "token", store)
    assert agent.device.simulated
    assert agent.info.name == "blocktime-simulated"
    assert list(agent.runtimes) == [RUNTIME]
    assert simulated_agent(PLAIN, "token", store).info == agent.info
    assert simulated_agent(SCENARIOS["quiet"], "token", store).info != agent.info
    assert agent_info().version != agent.info.version


def test_names_of_simulated_devices() -> None:
    assert scenario_of("simulated") == SCENARIOS["quiet"]
    assert scenario_of("simulated:phone") == SCENARIOS["phone"]
    assert scenario_of("pixel8") is None
    assert simulated_program(SCENARIOS["phone"]).device_name == "simulated-phone"


def test_its_variant_is_no_other() -> None:
    variant = Variant("simulated", "", threads=2)
    assert variant.name == "simulated-t2"
    assert Variant.parse("simulated-t2") == variant
    assert variant.is_simulated
    assert not Variant.parse("executorch-xnnpack-fp32-t2").is_simulated
    assert variant.load_options == {"threads": 2}
    wrong: dict[str, Any]
    for wrong in ({"precision": "fp16"}, {"target": "xnnpack"}, {"threads": 0}, {"threads": 65}):
        with pytest.raises(UsageError):
            dataclasses.replace(variant, **wrong)


def test_operators_cost_what_their_sizes_say_and_nothing_between_them(tmp_path) -> None:
    """1 MMAC at 0.02 ms; 4 bytes each of 1000 inputs, 1000 outputs and twice 1 M weights at 0.05 ms a MiB."""
    keys = ("gemm(m=1,k=1000,n=1000)", "softmax(m=1,n=1000)")
    assert read_model(write_model(keys, tmp_path).path) == keys
    truth = GroundTruth(TrueCosts(deviation_sd=0.0, pair_sd=0.1, spill_ms_per_mib=1.0))
    moved_mib = (2 * 4 * 1000 + 2 * 4 * 1_000_000) / 2**20
    assert truth.entry_ms(keys[0]) == pytest.approx(0.03 + 0.02 + 0.05 * moved_mib)
    assert truth.latency_ms(keys) == truth.base_ms + sum(map(truth.entry_ms, keys))
    with raises("invalid_model"):
        read_model(write_model(("gemm(m=1,k=1000)",), tmp_path).path)
