"""A simulated phone that runs autovit-nano: its LUT, and journals of later measurements on it."""

import contextlib
import functools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.latencies import LatencyEstimates
from luts.format.schema import ModelSpec
from luts.format.store import LutStore
from orchestrator.journal.log import Journal
from orchestrator.journal.records import (
    BatchRecord,
    EndRecord,
    Header,
    Identity,
    RoundsRecord,
)
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Policy, features_of, model_id
from orchestrator.wire.messages import DeviceState
from search.blocks import boundary_bytes, parse_key, parse_keys
from search.spaces import get_space
from tests.support.fake_device import QUIET
from tests.support.lut_world import lut_inputs, simulate

STATE = DeviceState.model_validate(QUIET | {"qos": "utility", "caveats": ["power_save"]})

SPACE = get_space("autovit-nano")
ROUNDS = 20
MODELS: dict[str, Any] = {"design": 12, "heldout": 10}


def true_ms(blocks):
    """Latency of a network on the phone in ms: a sum over its blocks."""
    return sum(0.05 + parse_key(key).macs().total * 4e-7 for key in blocks)


def digest_of(name):
    return f"{int(name, 16):064x}" if name != "reference" else "e" * 64


@functools.cache
def make_lut(space_name=SPACE.name):
    """Return a LUT of a plan like that of `bench profile --removals none`."""
    space = get_space(space_name)
    plan = make_plan(space, removals="none", **MODELS)
    specs = [
        ModelSpec(
            model_id=model.model_id,
            arch=model.arch,
            blocks=model.blocks,
            boundary_bytes=boundary_bytes(parse_keys(model.blocks)),
            artifact_sha256=digest_of("reference" if model.role == "reference" else model.model_id),
            split="heldout" if model.role == "heldout" else "fit",
            role=model.role,
        )
        for model in plan.models
    ]
    reference = plan.reference.model_id
    names = [spec.model_id for spec in specs if spec.model_id != reference]
    batches = [names[start : start + 6] for start in range(0, len(names), 6)] * 3
    latency = {spec.model_id: math.log(true_ms(spec.blocks)) for spec in specs}
    samples = simulate(latency, reference, batches, np.random.default_rng(0), segments=1)
    given = lut_inputs().model_dump() | {
        "space": space.name,
        "space_hash": space.digest,
        "variant": "executorch-xnnpack-fp32-t2",
        "reference_id": reference,
        "policy": Policy().to_dict() | {"seed": 0},
    }
    estimation = LatencyEstimates.of(samples, reference)
    return build_lut(type(lut_inputs())(**given), specs, estimation, features_of(space.block_specs()))


def fresh_archs(count, seed=0):
    """Return architectures that the LUT has not seen."""
    known, rng = {model.model_id for model in make_lut().models}, random.Random(seed)
    found = {}
    while len(found) < count:
        arch = SPACE.sample(rng)
        if model_id(arch.keys()) not in known:
            found[arch] = None
    return list(found)


def write_journal(path, archs, **changes):
    """Write three loads of each next to the reference; `changes` apply to the identity, or `simulated`."""
    meta = make_lut().meta
    names = [model_id(arch.keys()) for arch in archs]
    latency = {"reference": true_ms(reference_blocks())}
    latency |= {name: true_ms(arch.keys()) for name, arch in zip(names, archs, strict=True)}
    identity = Identity(
        device_model=meta.device.model,
        soc=meta.device.soc,
        os=meta.device.os,
        os_build=meta.device.os_build,
        agent=meta.versions.agent,
        runtime=meta.versions.runtime,
        variant=meta.variant,
        plan="a later plan",
        policy=Policy().to_dict(),
        artifacts={"reference": "e" * 64} | {name: digest_of(name) for name in names},
    ).model_copy(update={name: value for name, value in changes.items() if name != "simulated"})
    simulated = changes.get("simulated", meta.measured == "simulated")
    with Journal(path) as journal:
        created = "2026-02-03T04:05:06+00:00"
        header = Header(
            identity=identity, reference_id="reference", seed=1, created=created, simulated=simulated
        )
        journal.append(header.model_dump())
        for batch in range(3):
            slots = ["reference", "reference", *names]
            for record in _batch(batch, slots, latency):
                journal.append(record.model_dump())
    return path


def reference_blocks():
    lut = make_lut()
    return next(model.blocks for model in lut.models if model.model_id == lut.meta.reference_id)


def _batch(batch, slots, latency):
    rng = np.random.default_rng(batch)
    order = [rng.permutation(len(slots)).tolist() for _ in range(ROUNDS)]
    noise = np.exp(rng.normal(0, 0.01, (ROUNDS, len(slots))))
    ns = np.array([[latency[slots[slot]] * 1e6 for slot in row] for row in order]) * noise
    yield BatchRecord(
        batch=batch,
        segment=0,
        pass_index=batch,
        group=0,
        attempt=0,
        slots=slots,
        copies=[0, 1] + [0] * (len(slots) - 2),
        load_ns=[1] * len(slots),
    )
    yield RoundsRecord(
        batch=batch,
        segment=0,
        first_round=0,
        settle_runs=0,
        order=order,
        ns=ns.astype(np.int64),
        state_before=STATE,
        state_after=STATE,
    )
    yield EndRecord(batch=batch, kept=True, reason="", aa=[])


@contextlib.contextmanager
def home_with_lut(home: Path, export_cache: Path) -> Iterator[Path]:
    """Work in a folder whose `luts` has the phone's LUT, with the tests' cache of exports."""
    LutStore([home / "luts"]).write(make_lut())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("BLOCKTIME_LUTS", str(home / "luts"))
        patch.setenv("BLOCKTIME_CACHE", str(export_cache))
        yield home
