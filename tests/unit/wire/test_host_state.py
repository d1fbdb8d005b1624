"""What the Python agent tells of its own memory."""

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
