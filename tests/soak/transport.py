"""Faults between host and phone while `bench profile` measures a small plan, each at a seeded byte.

A command ends by itself, or with one line; then the fault is over, and the same command resumes. The phone's
latencies are constant: no sample may be lost, doubled or another model's. The latencies of models must be those of
an undisturbed run, and those of entries within its intervals.

The product's time limits, of seconds to minutes, are shortened to one to four seconds.
"""

from __future__ import annotations

import contextlib
import gc
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.agent import agent as agent_module
from orchestrator.devices.android import device as android
from orchestrator.devices.android import direct, link, server
from orchestrator.devices.iphone import device as iphone
from orchestrator.devices.iphone import mobiledevice
from orchestrator.journal.log import read_log, samples_table
from orchestrator.measure import readiness, session
from orchestrator.tasks import exported_plan, profile
from orchestrator.tasks.plan import choose_plan
from orchestrator.wire import client
from tests.soak.faults import Fault, Outcome
from tests.soak.phones import THIEVES, AndroidPhone, DirectAndroidPhone, FaultyPhone, Iphone
from tests.support.bench import bench
from tests.support.proxy import Direction, Link
from tests.support.simulated_phone import shorten
from tests.support.small_disk import SmallDisk, can_mount

SEEDS = 17
"""60 faults, those of a real adb daemon among them, with 17 seeds each make 1,020 tries."""

LIMIT_S = 60.0
"""A command that has not ended by then hangs; one that survives a fault takes a few seconds."""

_PLAN = ("--space", "autovit-nano", "--removals", "none", "--design", "3", "--heldout", "2", "--from", "none")
_PROFILE = (*_PLAN, "--budget", "1s", "--no-self-test", "--workers", "1", "--json")
_SHORT_LIMITS: list[tuple[Any, str, Any]] = [
    (client, "SILENCE_LIMIT_S", 3.0),
    (client, "LOAD_LIMIT_S", 4.0),
    (agent_module, "HANDOVER_S", 0.3),
    (android, "ANSWER_TIMEOUT_S", 2.0),
    (android, "BUSY_TIMEOUT_S", 3.0),
    (android, "START_TIMEOUT_S", 2.0),
    (android, "_STALE_TIMEOUT_S", 1.0),
    (android, "_POLL_S", 0.05),
    (android, "_RECONNECT_POLL_S", 0.05),
    (link.AdbLink.shell, "__defaults__", (b"", 1.0)),
    (server, "_ANSWER_TIMEOUT_S", 1.0),
    (server, "_NETWORK_TIMEOUT_S", 1.0),
    (direct, "_CONNECT_TIMEOUT_S", 1.0),
    (direct, "_ANSWER_TIMEOUT_S", 1.0),
    (direct, "_POLL_S", 0.002),
    (direct, "_PAUSE_S", 0.001),
    (iphone, "ANSWER_TIMEOUT_S", 2.0),
    (iphone, "BUSY_TIMEOUT_S", 3.0),
    (iphone, "_START_TIMEOUT_S", 2.0),
    (iphone, "_HANG_UP_TIMEOUT_S", 0.5),
    (iphone, "_SETTLE_TIMEOUT_S", 1.0),
    (iphone, "_POLL_S", 0.05),
    (mobiledevice.MobileDevice._call, "__defaults__", (2.0,)),
    (mobiledevice, "_STATE_TIMEOUT_S", 1.0),
    (mobiledevice, "_LAUNCH_TIMEOUT_S", 2.0),
    (readiness, "SILENCE_LIMIT_S", 3.0),
    (readiness, "_POLL_S", 0.05),
    (readiness, "_SHOW_S", 0.05),
]

_PYTHON_WORDS = re.compile(r"Traceback|\b[A-Z][a-z]\w*(?:Error|Exception)\b|NoneType|object at 0x")
"""What a line for users has not."""


class HangError(BaseException):
    """A command did not end in time; not an Exception, so that nothing handles it."""


@dataclass(frozen=True)
class Injection:
    """What a seed does: `strike` at its byte, `end` before the command is resumed, if it ended with an error."""

    strike: Callable[[Link], None]
    end: Callable[[], None] = lambda: None
    direction: Direction | None = None
    latest: float = 0.98
    """Last fraction of the bytes at which it may strike."""


@dataclass(frozen=True)
class World:
    """A phone, and the host's disk with runs and LUTs."""

    phone: FaultyPhone
    home: Path
    disk: SmallDisk | None = None

    @property
    def journal(self) -> Path:
        """The journal of the only run."""
        return self.home / "run" / "journal.jsonl"


Sample = tuple[str, int]
"""Model and nanoseconds."""


@dataclass(frozen=True)
class Profiled:
    """What a profile measured: samples by batch, round and position, and the LUT's figures.

    Latencies of models by id; of entries by key, with the ends of their 95 % intervals.
    """

    samples: Mapping[tuple[int, int, int], Sample]
    doubled: int
    models: Mapping[str, float]
    entries: Mapping[str, tuple[float, float, float]]


def cut(world: World, rng: random.Random) -> Injection:
    """Cut the connection, inside a frame or between two."""
    return Injection(partial(Link.cut, reset=rng.random() < 0.5))


def delay(world: World, rng: random.Random) -> Injection:
    """Deliver nothing for a while."""
    seconds = rng.uniform(0.02, 0.5)

    def strike(carrying: Link) -> None:
        carrying.thawed.clear()
        world.phone.later(seconds, carrying.thawed.set)

    return Injection(strike)


def split(world: World, rng: random.Random) -> Injection:
    """Deliver the next bytes one at a time."""
    count = rng.choice((30, 300, 3000))
    return Injection(lambda carrying: setattr(carrying, "single_bytes", count))


def duplicate(world: World, rng: random.Random) -> Injection:
    """Open the connection a second time, with the same bytes; the first one may end at the same moment."""
    for_s, cuts = rng.uniform(0.0, 1.0), rng.random() < 0.5

    def strike(carrying: Link) -> None:
        world.phone.proxy.copy(carrying, for_s)
        if cuts:
            carrying.cut()

    return Injection(strike)


def kill_app(world: World, rng: random.Random) -> Injection:
    """End the app."""
    return Injection(lambda _: world.phone.kill_app())


def reboot(world: World, rng: random.Random) -> Injection:
    """Restart the phone."""
    away_s = rng.uniform(0.1, 1.0)
    return Injection(lambda _: world.phone.reboot(away_s), lambda: time.sleep(away_s))


def steal_port(world: World, rng: random.Random) -> Injection:
    """End the app and let another program take its port, for good or for a moment."""
    thief, for_s = rng.choice(THIEVES), rng.choice((0.2, None))

    def strike(_: Link) -> None:
        world.phone.lose_port(thief)
        if for_s is not None:
            world.phone.later(for_s, world.phone.regain_port)

    return Injection(strike, world.phone.regain_port)


def hang(world: World, rng: random.Random) -> Injection:
    """Let the connection or the app stand still without ending, or for a while all connections to the phone."""
    what, phone = rng.choice(("connection", "app", "everything")), world.phone
    for_s = rng.uniform(0.5, 3.0)

    def strike(carrying: Link) -> None:
        front = phone.app.front
        if what == "connection" or (what == "app" and front is None):
            carrying.thawed.clear()
        elif what == "app" and front is not None:
            front.freeze()
        else:
            phone.proxy.freeze()
            phone.later(for_s, end_freeze)

    def end_freeze() -> None:
        if phone.proxy.is_frozen:  # else the command that resumes would be cut
            thaw()

    def thaw() -> None:
        phone.proxy.is_frozen = False
        phone.proxy.cut_all()

    def end() -> None:
        thaw()
        phone.kill_app()

    return Injection(strike, end)


def jump_host_clock(world: World, rng: random.Random) -> Injection:
    """Set the wall clock forward or back, or let all clocks pass a while in which nothing ran."""
    wall_s = rng.choice((-1, 1)) * 10 ** rng.uniform(0, 8)
    slept_s = rng.choice((0.0, 10 ** rng.uniform(0, 4)))
    return Injection(lambda _: HOST_CLOCK.jump(wall_s + slept_s, slept_s))


def jump_device_clock(world: World, rng: random.Random) -> Injection:
    """Let the device's clock, which is monotonic, jump forward between two readings."""
    ns = int(1e9 * 10 ** rng.uniform(-2, 4))
    readings = rng.randrange(400)

    def strike(_: Link) -> None:
        world.phone.app.clock.ns, world.phone.app.clock.readings = ns, readings

    return Injection(strike)


def fill_host_disk(world: World, rng: random.Random) -> Injection:
    """Fill the disk of journal and LUTs, but for a few bytes."""
    disk, free = world.disk, rng.choice((0, 100, 4096, 20_000))
    assert disk is not None
    return Injection(lambda _: disk.fill(world.journal, free), disk.free)


def fill_phone_disk(world: World, rng: random.Random) -> Injection:
    """Fill the disk of the phone's model store, but for a few bytes, while models are sent."""
    disk, free = world.disk, rng.choice((0, 4096, 8192))
    assert disk is not None
    return Injection(lambda _: disk.fill(world.phone.store, free), disk.free, "up", 0.5)


class HostClock:
    """The clocks of the host's modules: those of the system and what they have jumped by."""

    def __init__(self) -> None:
        self.wall_s = self.monotonic_s = 0.0

    def jump(self, wall_s: float, monotonic_s: float) -> None:
        """Add seconds to both."""
        self.wall_s += wall_s
        self.monotonic_s += monotonic_s

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let all modules of the host that know the module `time` use this; the agent's do not."""
        self.wall_s = self.monotonic_s = 0.0
        names = vars(time) | {
            "time": lambda: time.time() + self.wall_s,
            "monotonic": lambda: time.monotonic() + self.monotonic_s,
        }
        shifted = SimpleNamespace(**names)
        with contextlib.ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                if not name.startswith(("orchestrator.", "luts.")) or name.startswith("orchestrator.agent"):
                    continue
                for attribute, value in list(vars(module).items()):
                    if value is time:
                        stack.enter_context(mock.patch.object(module, attribute, shifted))
                    elif value is time.monotonic:
                        stack.enter_context(mock.patch.object(module, attribute, shifted.monotonic))
            yield


HOST_CLOCK = HostClock()

Kind = Callable[[World, random.Random], Injection]
KINDS: dict[str, Kind] = {
    "cut": cut,
    "delay": delay,
    "split": split,
    "duplicate": duplicate,
    "app-killed": kill_app,
    "reboot": reboot,
    "port-stolen": steal_port,
    "hang": hang,
    "host-clock": jump_host_clock,
    "device-clock": jump_device_clock,
    "host-disk": fill_host_disk,
    "phone-disk": fill_phone_disk,
}
TRANSPORTS: dict[str, Callable[[Path], FaultyPhone]] = {
    "adb-server": AndroidPhone,
    "adb-direct": DirectAndroidPhone,
    "usbmuxd": Iphone,
}


@contextlib.contextmanager
def _world(folder: Path, transport: str, kind: str = "") -> Iterator[World]:
    """Make a phone and an empty host, whose limits are short if there is a fault."""
    home = folder / "home"
    with contextlib.ExitStack() as stack:
        stack.enter_context(HOST_CLOCK.installed())
        for owner, name, value in _SHORT_LIMITS if kind else ():
            stack.enter_context(mock.patch.object(owner, name, value))
        disk = None
        if kind in ("host-disk", "phone-disk"):
            disk = SmallDisk(home if kind == "host-disk" else folder / "store")
            stack.callback(disk.close)
        home.mkdir(exist_ok=True)
        phone = TRANSPORTS[transport](folder)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("LUTS", "RUNS", "CACHE", "LOCKS"):
            patch.setenv(f"BLOCKTIME_{name}", str((folder if name == "LOCKS" else home) / name.lower()))
        shorten(patch, _exports())
        _plan_once(patch, transport)
        stack.enter_context(phone.attached())
        yield World(phone, home, disk)


@cache
def _exports() -> Path:
    return Path(tempfile.mkdtemp(prefix="soak-exports-"))


_plans: dict[str, Any] = {}


def _plan_once(patch: pytest.MonkeyPatch, transport: str) -> None:
    """Use the plan of a transport's first run again: half of a run's time went into it."""

    def choose_once(*arguments: Any) -> Any:
        if transport not in _plans:
            _plans[transport] = choose_plan(*arguments)
        return _plans[transport]

    patch.setattr(profile, "choose_plan", choose_once)
    patch.setattr(exported_plan, "replacement_models", lambda *_: [])  # every model is exported


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise HangError in this thread, the main one, after some seconds."""

    def give_up(_number: int, frame: FrameType | None) -> None:
        where = traceback.extract_stack(frame)[-4:]
        raise HangError(" < ".join(f"{Path(at.filename).name}:{at.lineno}" for at in reversed(where)))

    handler = signal.signal(signal.SIGALRM, give_up)
    before = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, handler)


def _profile(world: World) -> tuple[int, str]:
    """Run the command, or resume it; return its exit code and what it says on stderr."""
    with _bounded(LIMIT_S):
        done = bench("profile", "--device", world.phone.target, *_PROFILE, "--run", world.home / "run")
    return done.returncode, done.stderr


def _read(world: World) -> Profiled:
    """Read a finished profile, and verify its LUT."""
    table = samples_table(read_log(world.journal))
    columns = [table.column(name).to_pylist() for name in ("batch", "round", "position", "model", "ns")]
    rows = list(zip(*columns, strict=True))
    samples = {(batch, number, position): (model, ns) for batch, number, position, model, ns in rows}
    (ref,) = LutStore([world.home / "luts"]).list()
    lut = verify_lut(ref.path)
    models = {model.model_id: model.ms for model in lut.models}
    entries = {entry.key: (entry.ms, entry.ci_low, entry.ci_high) for entry in lut.entries}
    return Profiled(samples, len(rows) - len(samples), models, entries)


@dataclass(frozen=True)
class Undisturbed:
    """A profile without a fault, and the bytes carried by when measuring began, when it had ended, and in all."""

    profiled: Profiled
    begun: Mapping[Direction, int]
    ended: Mapping[Direction, int]
    carried: Mapping[Direction, int]

    def draw_byte(self, rng: random.Random, direction: Direction, latest: float) -> int:
        """Draw where to strike: three times of four while models are measured, else at any byte."""
        first, last = self.begun[direction], self.ended[direction]
        if rng.random() < 0.25:
            first, last = 0, self.carried[direction]
        return int(first + rng.uniform(0, latest) * (last - first))


@cache
def undisturbed(transport: str) -> Undisturbed:
    """Return the profile of a transport without a fault."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, _world(Path(folder), transport) as world:
        carried, measure_with = [], session.measure_with

        def count_and_measure(*given: Any) -> session.Measurement:
            carried.append(dict(world.phone.proxy.carried))
            measurement = measure_with(*given)
            carried.append(dict(world.phone.proxy.carried))
            return measurement

        with mock.patch.object(session, "measure_with", count_and_measure):
            exit_code, said = _profile(world)
        assert exit_code == 0, said
        gc.freeze()  # else an agent in this process looks through all modules before every run that it times
        begun, ended = carried
        return Undisturbed(_read(world), begun, ended, dict(world.phone.proxy.carried))


def run(kind: str, transport: str, seed: int, folder: Path) -> Outcome:
    """Profile with the fault of a seed, resume once if the command ends with an error, and compare."""
    normal, rng = undisturbed(transport), random.Random(f"{kind} {transport} {seed}")
    with _world(folder, transport, kind) as world:
        injection = KINDS[kind](world, rng)
        direction = injection.direction or rng.choice(("up", "down"))
        at_byte = normal.draw_byte(rng, direction, injection.latest)
        world.phone.proxy.arm(direction, at_byte, injection.strike)
        place = f"{direction} byte {at_byte}"
        problems: list[str] = []
        try:
            exit_code, said = _profile(world)
            if exit_code:
                problems += _defects(exit_code, said)
                before = _journal(world)
                injection.end()
                exit_code, again = _profile(world)
                if exit_code:
                    problems.append(f"not resumed after {said[-300:]!r}: {again[-300:]!r}")
                if not _journal(world).startswith(before):
                    problems.append("the journal lost records")
        except HangError as hang:
            return Outcome(hung=1, detail=f"{place}: hung at {hang}")
        if world.phone.proxy.is_armed:
            return Outcome(tries=0, detail=f"{place} was never carried")
        if problems:
            return Outcome(wrong=1, detail=f"{place}: {'; '.join(problems)}"[:1000])
        return _compare(normal.profiled, _read(world), kind, place)


def _journal(world: World) -> bytes:
    """Return the whole lines of the journal."""
    data = world.journal.read_bytes() if world.journal.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _defects(exit_code: int, said: str) -> list[str]:
    """Return what is wrong with how a command ended."""
    lines = [line for line in said.splitlines() if line.startswith("bench: ")]
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if exit_code not in (1, 3, 4) or len(lines) != 1 or last != lines[0] or _PYTHON_WORDS.search(last):
        return [f"ended with {exit_code}: {said[-400:]!r}"]
    return []


def _compare(normal: Profiled, profiled: Profiled, kind: str, place: str) -> Outcome:
    lost = len(normal.samples.keys() - profiled.samples.keys())
    latency = dict(normal.samples.values())
    other = [sample for sample in profiled.samples.values() if sample[1] != latency[sample[0]]]
    # A sample during which the device's clock jumps is as long as the jump.
    misread = max(0, len(other) - (kind == "device-clock"))
    drifted = [
        name for name, ms in normal.models.items() if abs(profiled.models.get(name, 0.0) - ms) > 1e-9 * ms
    ]
    # Two loads in place of one, after an interruption, weigh more against the prior.
    drifted += [
        key for key, (_, low, high) in normal.entries.items() if not low <= profiled.entries[key][0] <= high
    ]
    problems = [f"{misread} samples are of no model: {other[:3]}"] if misread else []
    problems += [f"{len(drifted)} figures of the LUT differ: {drifted[:3]}"] if drifted else []
    problems += [f"{lost} samples lost"] if lost else []
    problems += [f"{profiled.doubled} samples doubled"] if profiled.doubled else []
    return Outcome(
        lost=lost,
        doubled=profiled.doubled,
        wrong=int(bool(misread or drifted)),
        detail=f"{place}: {'; '.join(problems)}" if problems else "",
    )


def _missing(kind: str) -> str:
    return "" if kind != "phone-disk" or can_mount() else "no filesystem can be mounted here"


FAULTS = [
    Fault(f"transport/{transport}/{kind}", partial(run, kind, transport), SEEDS, partial(_missing, kind))
    for transport in TRANSPORTS
    for kind in KINDS
]
