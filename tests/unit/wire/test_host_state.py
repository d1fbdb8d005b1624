"""What the Python agent tells of its own memory and of the clocks of its machine."""

import subprocess
import sys

from orchestrator.agent import device as state

HOLDS = """
from orchestrator.agent.device import read_state

print(read_state().agent_memory_bytes)
held = bytearray(b"x") * (64 << 20)
print(read_state().agent_peak_memory_bytes)
del held
print(read_state().agent_peak_memory_bytes)
"""


def test_the_peak_of_this_process_is_its_own(tmp_path) -> None:
    status = tmp_path / "status"
    status.write_text("VmPeak:\t  900 kB\nVmHWM:\t  64 kB\nVmRSS:\t  32 kB\n")
    assert state._peak_memory_bytes(status) == 65_536
    assert state._peak_memory_bytes(tmp_path / "none") is None
    done = subprocess.run([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True, check=True)
    before, peak, again = map(int, done.stdout.split())
    assert before + (48 << 20) <= peak <= before + (512 << 20), "not that of whoever started the process"
    assert again > peak - (1 << 20), "it stays, but for counts that Linux keeps per core"


def test_core_reports_cap_and_hardware_limit(tmp_path) -> None:
    folder = tmp_path / "cpu4/cpufreq"
    folder.mkdir(parents=True)
    for name, khz in (("scaling_max_freq", 1_803_000), ("cpuinfo_max_freq", 2_367_000)):
        (folder / name).write_text(f"{khz}\n")
    (clock,) = state._cpu_clocks(tmp_path)
    assert (clock.cpu, clock.mhz, clock.max_mhz, clock.hardware_max_mhz) == (4, None, 1803.0, 2367.0)
