"""A device whose models have known latencies, drift and load-to-load spread: no process, no socket, no sleep."""

import math
import random

import numpy as np

from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import measure
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import SILENCE_LIMIT_S, ModelFile, RunResult
from orchestrator.wire.errors import AgentError, AgentLostError
from orchestrator.wire.messages import DeviceState, HelloReply, LoadReply, Warmed

TRUE_MS = {f"model{i:02d}": 1.0 + 0.25 * i for i in range(9)}
SHA = {name: f"{i:064x}" for i, name in enumerate(TRUE_MS)}
POLICY = Policy(batch_models=4, min_rounds=10, max_rounds=20, max_passes=3, cooling_s=0.0)
VARIANT = Variant("executorch", "xnnpack", "fp32", 1)

QUIET = {
    "uptime_ns": 1,
    "load_average_1m": 0.0,
    "cpus": [],
    "steal_ms": 0,
    "thermal_state": "nominal",
    "thermal_headroom": None,
    "thermal_zones": [],
    "throttle_count": None,
    "battery": None,
    "low_power_mode": None,
    "free_memory_bytes": 1 << 30,
    "agent_memory_bytes": 1 << 20,
    "qos": None,
    "foreground": None,
}


class FakeDevice:
    """`true_ms` by sha256. `lose_after`: run calls after which the connection breaks once each.

    `deadly`: models (by sha256) that kill the agent when they run; `deadly_loads` when they are loaded;
    `deadly_company`: when all of them run together; `refused`: models that do not load.
    An execution that takes longer than the client waits for a sign of life ends like a death.
    `hungry`: how many loads of a model fail for want of memory before one works.
    `unready`: states in which `run` is refused, one each, before it works.
    """

    name, identity = "fake", ""
    fixed_performance = False
    allow: tuple[str, ...] = ()

    def __init__(self, true_ms, *, load_sd=0.004, noise=0.003, seed=0, lose_after=(), states=None):
        self.true_ms, self.load_sd, self.noise = true_ms, load_sd, noise
        self.rng = random.Random(seed)
        self.lose_after, self.runs, self.connections = set(lose_after), 0, 0
        self.states = list(states or [])
        self.os_build = "1"
        self.visits, self.warmups, self.paces = [], [], set()
        self.deadly, self.refused, self.unready = set(), set(), []
        self.deadly_loads, self.deadly_company, self.deaths = set(), set(), 0
        self.hungry, self.most_loaded, self.loads = {}, 0, []
        self.agent_starts, self.agent_dead = 0, True
        self.stands, self.shown = QUIET, 0

    def describe(self):
        return "a fake"

    def check_ready(self):
        return None

    def connect(self):
        self.connections += 1
        self.agent_starts += self.agent_dead
        self.agent_dead = False
        return FakeClient(self)

    def read_log(self):
        return ""

    def bring_to_front(self):
        self.shown += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class FakeClient:
    def __init__(self, device):
        self.device, self.loaded, self.names = device, {}, {}
        self.silence_limit_s = SILENCE_LIMIT_S

    def hello(self):
        return HelloReply.model_validate(
            {
                "id": 1,
                "protocol": 1,
                "agent": {"name": "fake", "version": "1"},
                "device": {
                    "model": "Fake",
                    "os": "none",
                    "os_build": self.device.os_build,
                    "soc": None,
                    "cores": 2,
                    "memory_bytes": 1 << 30,
                },
                "runtimes": {
                    "executorch": {
                        "version": "1.5.1",
                        "backends": ["XnnpackBackend"],
                        "options": {"threads": {"type": "int", "default": 2, "min": 1, "max": 2}},
                    }
                },
            }
        )

    def ensure(self, path, sha256=None, progress=None):
        return True

    def load(self, sha256, runtime, options=None, waited=None):
        if sha256 in self.device.refused:
            raise AgentError("bad_model", "an operator that the backend does not have")
        if sha256 in self.device.deadly_loads:
            self.die()
        if self.device.hungry.get(sha256, 0):
            self.device.hungry[sha256] -= 1
            raise AgentError("out_of_memory", "the model needs about 9 MiB and 8 MiB are free")
        self.device.loads.append(sha256)
        handle = max(self.loaded, default=0) + 1
        self.names[handle] = sha256
        level = math.exp(self.device.rng.gauss(0, self.device.load_sd))
        self.loaded[handle] = self.device.true_ms[sha256] * level
        self.device.most_loaded = max(self.device.most_loaded, len(self.loaded))
        return LoadReply(
            id=1,
            handle=handle,
            load_ns=1000,
            options={},
            inputs=[],
            outputs=[],
            delegates=None,
            placement=None,
        )

    def die(self):
        self.device.agent_dead = True
        self.device.deaths += 1
        raise AgentLostError("the fake's agent died")

    def placement(self, handle, waited=None):
        return None

    def unload(self, handle):
        del self.loaded[handle]

    def run(self, handles, order, warmup=0, warmup_ms=0, pace_us=0, keep_warm=None):
        device = self.device
        if device.unready:
            device.stands = device.unready.pop(0)
            raise AgentError("not_ready", "the phone is hot; let it cool")
        device.runs += 1
        device.warmups.append((warmup, warmup_ms))
        device.paces.add(pace_us)
        if device.runs in device.lose_after:
            raise AgentLostError("the fake was unplugged")
        running = {self.names[handle] for handle in handles}
        is_silent = max(self.loaded[handle] for handle in handles) > 1e3 * self.silence_limit_s
        if (
            is_silent
            or device.deadly & running
            or (device.deadly_company and device.deadly_company <= running)
        ):
            self.die()
        samples = np.zeros((len(order), len(order[0])), dtype=np.int64)
        for r, visited in enumerate(order):
            drift = math.exp(0.2 * math.sin(device.runs + r / 7))
            for v, index in enumerate(visited):
                noise = math.exp(device.rng.gauss(0, device.noise))
                samples[r, v] = int(1e6 * self.loaded[handles[index]] * drift * noise)
        before, after = (device.states.pop(0), device.states.pop(0)) if device.states else (QUIET, QUIET)
        warmed = Warmed(ns=10**6 * warmup_ms, rounds=device.runs, steady=True) if warmup_ms else None
        return RunResult(
            samples, DeviceState.model_validate(before), DeviceState.model_validate(after), warmed
        )

    def state(self):
        return DeviceState.model_validate(self.device.stands)

    def close(self):
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def subject(tmp_path):
    """What is measured of those nine models, in files that nobody reads."""
    files = {name: ModelFile(tmp_path / name, sha) for name, sha in SHA.items()}
    return ModelSet(files, "model00", "0" * 64, seed=3)


def device(**options):
    """The device that has them."""
    return FakeDevice({SHA[name]: ms for name, ms in TRUE_MS.items()}, **options)


def run(folder, fake, policy=POLICY, budget_s=1e9, variant=VARIANT, models=None, usage_of=(), **options):
    """Measure them (or `models`) on it; the journal is in `folder`."""
    journal, models = folder / "journal.jsonl", models or subject(folder)
    engine_options = EngineOptions(budget_s=budget_s, **options)
    return measure(fake, variant, models, journal, policy, engine_options, usage_of=usage_of)


def records(folder, *kinds):
    """Return the records of some kinds in the journal in `folder`."""
    return [record for record in read_log(folder / "journal.jsonl") if isinstance(record, kinds)]
