"""What the Python agent tells of its own memory and of the clocks of its machine."""

from orchestrator.agent.device import state


def test_the_peak_of_this_process_is_its_own(tmp_path) -> None:
    status = tmp_path / "status"
    status.write_text("VmPeak:\t  900 kB\nVmHWM:\t  64 kB\nVmRSS:\t  32 kB\n")
    assert state._peak_memory_bytes(status) == 65_536
    assert state._peak_memory_bytes(tmp_path / "none") is None
    before = state.read_state()
    held = bytearray(b"x") * (64 << 20)
    peak = state.read_state().agent_peak_memory_bytes
    del held
    assert peak is not None
    assert before.agent_memory_bytes is not None
    assert peak >= before.agent_memory_bytes + (48 << 20)
    again = state.read_state().agent_peak_memory_bytes
    assert again is not None
    assert again > peak - (1 << 20), "it stays, but for counts that Linux keeps per core"


def test_a_core_tells_its_cap_and_what_its_hardware_has(tmp_path) -> None:
    folder = tmp_path / "cpu4/cpufreq"
    folder.mkdir(parents=True)
    for name, khz in (("scaling_max_freq", 1_803_000), ("cpuinfo_max_freq", 2_367_000)):
        (folder / name).write_text(f"{khz}\n")
    (clock,) = state._cpu_clocks(tmp_path)
    assert (clock.cpu, clock.mhz, clock.max_mhz, clock.hardware_max_mhz) == (4, None, 1803.0, 2367.0)
