"""This machine's identity and state: cores, clocks, temperatures, and where agents are built."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import psutil

from luts.format.files import data_folder
from luts.format.provenance import ROOT, is_checkout
from orchestrator.wire.messages import (
    AgentInfo,
    Battery,
    CpuClock,
    DeviceInfo,
    DeviceState,
    ThermalZone,
)

AGENTS_VARIABLE = "BLOCKTIME_AGENTS"
"""Environment variable that names another folder with `kotlin/`, `swift/` and `native/`."""


def built_dir() -> Path:
    """Return $BLOCKTIME_AGENTS, else `build` of the checkout, else `agents` in the user's data folder."""
    if named := os.environ.get(AGENTS_VARIABLE):
        return Path(named)
    if is_checkout():
        return ROOT / "build"
    return data_folder() / "agents"


def how_to_build_agents() -> str:
    """Return what to do if an agent in another language is missing."""
    if is_checkout():
        return "run `make agents`"
    return f"run `make agents` in a clone of blocktime and set {AGENTS_VARIABLE} to its folder `build`"


MAX_CORE = 4095

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def parse_cores(text: str) -> tuple[int, ...]:
    """Parse a list of cores such as `0,2-3` into ascending numbers; ValueError if it is not one."""
    cores: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= MAX_CORE:
            raise ValueError(f"{text[:64]!r} is not a list of cores such as 4-8 or 0,2-3")
        cores.update(range(first, last + 1))
    return tuple(sorted(cores))


def core_list(cores: Iterable[int]) -> str:
    """Format cores as Linux lists them, such as `0,2-3`; empty for none."""
    ranges: list[list[int]] = []
    for core in sorted(set(cores)):
        if ranges and ranges[-1][1] == core - 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


SYS_CPU = Path("/sys/devices/system/cpu")
_TASKS = Path("/proc/self/task")


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(allowed_cores()) or os.cpu_count() or 1


def allowed_cores() -> tuple[int, ...]:
    """Return the cores that the calling thread may run on; empty if the system has no such concept (macOS)."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def threads_by_default(cores: Collection[int] | None = None, root: Path = SYS_CPU) -> int:
    """Return how many cores are not little ones: threads on little cores delay the others.

    Little cores have less than half of the largest capacity that Linux states, or of the highest clock if a
    core has no capacity. If all capacities are equal, no clock is that low or one is unknown, half of the cores
    count, at least one: a computer's cores are often two hardware threads of one.
    """
    cores = allowed_cores() if cores is None else cores
    capacities = [_number(root / f"cpu{core}/cpu_capacity") for core in cores]
    clocks = [_number(root / f"cpu{core}/cpufreq/cpuinfo_max_freq") for core in cores]
    sizes = [size for size in (clocks if None in capacities else capacities) if size is not None]
    fast = sum(2 * size >= max(sizes) for size in sizes)
    if len(sizes) == len(cores) and (fast < len(cores) if None in capacities else len(set(sizes)) > 1):
        return fast
    return max(1, (len(cores) or usable_cores()) // 2)


def pin_threads(cores: Collection[int]) -> None:
    """Restrict all threads of this process, and those that they will start, to some cores.

    Raises:
        OSError: The system does not allow it, or only for some of the cores.
    """
    for task in _TASKS.iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue  # it has ended
    if set(allowed_cores()) != set(cores):
        raise PermissionError("the system gave other cores than were asked for")


SOURCES = ("agent", "wire")
"""Folders of this package whose files decide what the host agent measures."""


def agent_info(
    name: str = "blocktime-host", sources: Sequence[str] = SOURCES, settings: bytes = b"", calls: str = ""
) -> AgentInfo:
    """Return an agent's name and version.

    The version changes with any file in the folders `sources`, and with `settings`, which is what else decides
    what it measures; `calls`, how the runtime is called if there are several ways, is appended.
    """
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(settings)
    for path in sorted(path for folder in sources for path in (package / folder).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    version = f"python-{digest.hexdigest()[:16]}"
    return AgentInfo(name=name, version=f"{version}+{calls}" if calls else version)


_SYS_THERMAL = Path("/sys/class/thermal")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes(cgroup: Path = _CGROUP) -> int | None:
    """Return the memory available without swapping, within the limit of this process's control group if any."""
    available = int(psutil.virtual_memory().available)
    limit, current = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or current is None:
        return available
    reclaimable = _field(cgroup / "memory.stat", "inactive_file") or 0
    return max(0, min(available, limit - current + reclaimable))


def read_state() -> DeviceState:
    """Return the state now; takes about a millisecond and is never called inside a timed call."""
    return DeviceState(
        uptime_ns=time.monotonic_ns(),
        load_average_1m=os.getloadavg()[0],
        cpus=_cpu_clocks(),
        steal_ms=_steal_ms(),
        thermal_state=None,
        thermal_headroom=None,
        thermal_zones=_thermal_zones(),
        throttle_count=_throttle_count(),
        battery=_battery(),
        low_power_mode=None,
        free_memory_bytes=free_memory_bytes(),
        agent_memory_bytes=int(psutil.Process().memory_info().rss),
        agent_peak_memory_bytes=_peak_memory_bytes(),
        qos=None,
        foreground=None,
        cores=core_list(allowed_cores()) or None,
    )


def describe_host() -> DeviceInfo:
    """Return what this machine is; without its network name, since LUTs are shared."""
    return DeviceInfo(
        model=_text(Path("/sys/class/dmi/id/product_name")) or _sysctl("hw.model") or platform.machine(),
        os=_os_name(),
        os_build=platform.release() or None,
        soc=_cpu_model() or _sysctl("machdep.cpu.brand_string"),
        cores=usable_cores(),
        memory_bytes=int(psutil.virtual_memory().total),
    )


def _cpu_clocks(root: Path = SYS_CPU) -> list[CpuClock]:
    clocks = []
    for folder in sorted(root.glob("cpu[0-9]*"), key=lambda path: int(path.name[3:])):
        current, highest, hardware = (
            _number(folder / "cpufreq" / name)
            for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
        )
        governor = _text(folder / "cpufreq/scaling_governor")
        if current is not None or highest is not None or governor is not None:
            clocks.append(
                CpuClock(
                    cpu=int(folder.name[3:]),
                    mhz=None if current is None else current / 1000,
                    max_mhz=None if highest is None else highest / 1000,
                    governor=governor,
                    hardware_max_mhz=None if hardware is None else hardware / 1000,
                )
            )
    return clocks


def _thermal_zones(root: Path = _SYS_THERMAL) -> list[ThermalZone]:
    zones = []
    for folder in sorted(root.glob("thermal_zone*")):
        name, millidegrees = _text(folder / "type"), _number(folder / "temp")
        if name is not None and millidegrees is not None:
            zones.append(ThermalZone(name=name, celsius=millidegrees / 1000))
    return zones


def _throttle_count(root: Path = SYS_CPU) -> int | None:
    """Return the thermal throttling events of all cores since boot (x86 only)."""
    counts = [_number(path) for path in root.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _steal_ms() -> int | None:
    """Return the time since boot that a hypervisor gave to others while this machine had work."""
    steal_s = getattr(psutil.cpu_times(), "steal", None)
    return None if steal_s is None else max(0, int(steal_s * 1000))


def _peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Return the largest resident memory of this process so far.

    Not getrusage's: on Linux that starts with the process that started this one; macOS has no other.
    """
    if platform.system() == "Darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kibibytes = re.search(r"^VmHWM:\s*(\d+) kB$", _text(status, limit=1 << 16) or "", re.MULTILINE)
    return int(kibibytes[1]) * 1024 if kibibytes else None


def _battery() -> Battery | None:
    reading = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if reading is None:
        return None
    return Battery(percent=float(reading.percent), charging=reading.power_plugged, celsius=None)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.mac_ver()[0]}".strip()


def _cpu_model() -> str | None:
    text = _text(Path("/proc/cpuinfo"), limit=1 << 16) or ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0][:256] if names else None


def _sysctl(name: str) -> str | None:
    if platform.system() != "Darwin":
        return None
    done = subprocess.run(
        ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
    )
    return done.stdout.strip()[:256] or None


def _text(path: Path, limit: int = 256) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(limit).strip() or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def _field(path: Path, name: str) -> int | None:
    for line in (_text(path, limit=1 << 16) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return None
