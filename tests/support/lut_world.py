"""A simulated device whose truth is known: blocks, drift, load-to-load variance, outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from luts.build import build_lut
from luts.estimate.latencies import LatencyEstimates
from luts.format.lut import Lut
from luts.format.schema import DeviceInfo, KeyFeatures, LutInputs, ModelSpec, Versions

REFERENCE_MS = 10.0


@dataclass(frozen=True)
class Noise:
    load_sd: float = 0.005
    round_sd: float = 0.02
    outlier_share: float = 0.05
    drift_sd: float = 0.05


def simulate(
    log_latency: Mapping[str, float],
    reference: str,
    batches: Sequence[Sequence[str]],
    generator: np.random.Generator,
    *,
    noise: Noise = Noise(),
    segments: int = 3,
    rounds: int = 20,
) -> pa.Table:
    """Samples of models with these true log latencies (of milliseconds); the reference twice a batch.

    Noise: a factor per load, a slow multiplicative drift over the rounds, a factor per sample, and outliers
    that take 1.2 to 3 times as long.
    """
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("batch", "segment", "round", "position", "ns")
    }
    names: list[str] = []
    copies: list[int] = []
    for batch, members in enumerate(batches):
        loads = [(reference, 0), (reference, 1), *((name, 0) for name in members)]
        for segment in range(segments):
            load_effect = generator.normal(0, noise.load_sd, len(loads))
            drift = np.cumsum(generator.normal(0, noise.drift_sd / np.sqrt(rounds), rounds))
            truth = np.array([log_latency[name] for name, _ in loads])
            values = (
                (truth + load_effect)[:, None]
                + drift
                + generator.normal(0, noise.round_sd, (len(loads), rounds))
            )
            bad = generator.random(values.shape) < noise.outlier_share
            values += bad * np.log(generator.uniform(1.2, 3.0, values.shape))
            order = np.argsort(generator.random(values.shape), axis=0)
            count = values.size
            columns["batch"].append(np.full(count, batch))
            columns["segment"].append(np.full(count, segment))
            columns["round"].append(np.tile(np.arange(rounds), len(loads)))
            columns["position"].append(order.ravel())
            columns["ns"].append(np.exp(values.ravel() + np.log(1e6)).astype(np.int64))
            for name, copy in loads:
                names += [name] * rounds
                copies += [copy] * rounds
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return pa.table(
        {**arrays, "model": names, "copy": np.array(copies), "kept": np.ones(len(names), dtype=bool)}
    )


@dataclass(frozen=True)
class World:
    """A space of slots, each with a few choices; data moved between blocks costs `transfer_ms_per_mib`."""

    features: dict[str, KeyFeatures]
    entry_ms: dict[str, float]
    slots: tuple[tuple[str, ...], ...]
    base_ms: float = 0.3
    transfer_ms_per_mib: float = 0.1

    def latency_ms(self, blocks: Sequence[str], boundary_bytes: int = 0) -> float:
        moved_ms = self.transfer_ms_per_mib * boundary_bytes / 2**20
        return self.base_ms + moved_ms + sum(self.entry_ms[key] for key in blocks)


def make_world(
    generator: np.random.Generator, *, slots: int = 8, choices: int = 3, stray: float = 0.15, fixed: int = 0
) -> World:
    """Entry costs stray from physics by the relative deviation `stray`; the first `fixed` slots have no choice."""
    kinds = {"conv": (0.02, 0.010, 0.02), "mbconv": (0.05, 0.015, 0.05), "mvit.layer": (0.10, 0.020, 0.03)}
    names = list(kinds)
    features, entry_ms, table = {}, {}, []
    for slot in range(slots):
        kind = names[slot % 3]
        row = []
        for choice in range(1 if slot < fixed else choices):
            key = f"{kind}(slot={slot},width={choice})@{2 ** (8 - slot // 2)}"
            macs = int(generator.uniform(2e6, 6e7))
            traffic = int(generator.uniform(1e5, 6e6))
            constant, per_mmac, per_mib = kinds[kind]
            physics = constant + per_mmac * macs / 1e6 + per_mib * traffic / 2**20
            features[key] = KeyFeatures(kind=kind, macs=macs, traffic_bytes=traffic)
            entry_ms[key] = physics * float(np.exp(generator.normal(0, stray)))
            row.append(key)
        table.append(tuple(row))
    return World(features, entry_ms, tuple(table))


@dataclass(frozen=True)
class Study:
    inputs: LutInputs
    models: tuple[ModelSpec, ...]
    samples: pa.Table
    features: dict[str, KeyFeatures]
    truth_ms: dict[str, float]

    @property
    def estimation(self) -> LatencyEstimates:
        return LatencyEstimates.of(self.samples, self.inputs.reference_id)

    def lut(self) -> Lut:
        return build_lut(self.inputs, self.models, self.estimation, self.features)


def model_spec(
    model_id: str, blocks: Sequence[str], role: str, boundary_bytes: int = 0, **extra: str
) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model_id": model_id,
            "arch": "",
            "blocks": tuple(blocks),
            "boundary_bytes": boundary_bytes,
            "artifact_sha256": "ab" * 32,
            "split": "heldout" if role == "heldout" else "fit",
            "role": role,
            **extra,
        }
    )


def lut_inputs() -> LutInputs:
    return LutInputs(
        device=DeviceInfo(
            name="host", model="simulated", soc="", os="Linux", os_build="1", cores=2, memory_bytes=8 << 30
        ),
        versions=Versions(runtime="none", exporter="none", agent="none"),
        space="toy",
        space_hash="0123456789abcdef",
        variant="simulated-t1",
        policy={"rounds": 20, "quiet": True, "warm_up_s": 0.5, "order": "random"},
        reference_id="reference",
        created="2026-01-01",
        measured="simulated",
    )


def make_study(  # noqa: PLR0913 - a factory of tests, called by keyword
    generator: np.random.Generator,
    world: World,
    *,
    designs: int = 20,
    heldout: int = 0,
    removals: int = 0,
    batch_size: int = 6,
    noise: Noise = Noise(),
    segments: int = 3,
    rounds: int = 20,
    misfit_sd: float = 0.0,
    moved_bytes: int = 0,
) -> Study:
    """Random models of `world`, the reference among them, and removals of the reference's first blocks.

    `misfit_sd`: how far a model's true latency strays from the sum of its blocks; each moves up to
    `moved_bytes` between its blocks.
    """

    def draw() -> list[str]:
        return [row[generator.integers(len(row))] for row in world.slots]

    reference = draw()
    specs = [model_spec("reference", reference, "reference")]
    for role, number in [("design", number) for number in range(designs)] + [
        ("heldout", number) for number in range(heldout)
    ]:
        moved = int(generator.integers(moved_bytes + 1))
        specs.append(model_spec(f"{role}{number}", draw(), role, moved))
    for slot in range(removals):
        blocks = reference[:slot] + reference[slot + 1 :]
        specs.append(
            model_spec(f"removal{slot}", blocks, "removal", base_id="reference", removed_key=reference[slot])
        )
    truth = {
        spec.model_id: world.latency_ms(spec.blocks, spec.boundary_bytes)
        * float(np.exp(generator.normal(0, misfit_sd)))
        for spec in specs
    }
    others = [spec.model_id for spec in specs if spec.model_id != "reference"]
    generator.shuffle(others)
    batches = [others[start : start + batch_size] for start in range(0, len(others), batch_size)]
    samples = simulate(
        {name: float(np.log(ms)) for name, ms in truth.items()},
        "reference",
        batches,
        generator,
        noise=noise,
        segments=segments,
        rounds=rounds,
    )
    return Study(lut_inputs(), tuple(specs), samples, world.features, truth)


def small_study(seed: int = 0, slots: int = 3, **options: Any) -> Study:
    """A study of few models and rounds; options as of `make_study`."""
    generator = np.random.default_rng(seed)
    smallest = {"designs": 4, "segments": 1, "rounds": 5}
    return make_study(generator, make_world(generator, slots=slots), **smallest | options)
