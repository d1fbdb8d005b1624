"""A LUT and a run with round numbers, written by hand rather than fitted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from luts.format.lut import Lut, normalise_samples
from luts.format.provenance import CodeVersion
from luts.format.schema import (
    Conformal,
    DeviceInfo,
    Entry,
    HeldoutError,
    LutMeta,
    MeasuredModel,
    Versions,
)
from luts.format.store import LutStore
from search.algorithms.record import (
    CoarseStage,
    Constraints,
    Evaluated,
    Generation,
    LutPin,
    Provenance,
    SearchResult,
    SearchSettings,
)
from search.spaces import Arch, get_space

SPACE = get_space("autovit-nano")
SMALL = Arch(SPACE, 64, "fc", 10, ((8,), (16, 1, 3), (32, 1, 2, 1.5, 3)))
MIDDLE = Arch(SPACE, 64, "fc", 10, ((16,), (24, 1, 3), (32, 2, 2, 2.0, 3), (48, 1, 3, 2.0, 3)))
LARGE = Arch(SPACE, 64, "fc", 10, ((16,), (24, 2, 3), (32, 2, 3, 2.0, 3), (48, 1, 3, 2.0, 3)))
BLOCK_MS, BASE_MS, MS_PER_MIB = 0.5, 0.25, 1.0
ROUNDS = 20
LUT_NAME = "phone/autovit-nano/executorch-xnnpack-fp32-t2/v1"
AA_RATIO = 1.01
"""The reference's second load is slower by this factor, in every batch."""


def entry(key: str, kind: str, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "key": key,
        "kind": kind,
        "ms": BLOCK_MS,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "removal_ms": None,
        "removal_ci_low": None,
        "removal_ci_high": None,
        "loads": 9,
        "rounds": 180,
        "method": "design",
        "macs": 1000,
        "traffic_bytes": 1000,
    }
    return Entry(**(values | changes))


def model(model_id: str, arch: Arch, role: Any, ms: float) -> MeasuredModel:
    return MeasuredModel(
        model_id=model_id,
        arch=arch.to_json(),
        blocks=arch.keys(),
        boundary_bytes=0,
        artifact_sha256="ab" * 32,
        split="heldout" if role == "heldout" else "fit",
        role=role,
        ms=ms,
        ci_low=0.99 * ms,
        ci_high=1.01 * ms,
        loads=3,
        rounds=60,
    )


def samples() -> pa.Table:
    """Batches 0 and 2 accepted, 1 rejected; two loads of the reference in each, without noise."""
    rows = [
        {"batch": b, "segment": 0, "round": r, "position": c, "model": "reference", "copy": c}
        | {"ns": round(1e6 * AA_RATIO**c * (1 + r / 1000)), "kept": b != 1}
        for b in range(3)
        for r in range(ROUNDS)
        for c in range(2)
    ]
    return normalise_samples(pa.Table.from_pylist(rows))


def make_lut(
    measured: Any = "measured", device_model: str = "Made-up 3000", entries: tuple[Entry, ...] = ()
) -> Lut:
    """Every block of both architectures costs BLOCK_MS; the held-out model is predicted with an error."""
    blocks = {block.key: block for arch in (SMALL, LARGE) for block in arch.blocks()}
    rows = entries + tuple(entry(key, block.kind) for key, block in blocks.items())
    predicted_ms = BASE_MS + BLOCK_MS * len(LARGE.keys())
    meta = LutMeta(
        device=DeviceInfo(
            name="phone",
            model=device_model,
            soc="S1",
            os="OS",
            os_build="1A2B",
            cores=6,
            memory_bytes=4 << 30,
        ),
        versions=Versions(runtime="runtime 1", exporter="exporter 2", agent="agent 3"),
        space=SPACE.name,
        space_hash=SPACE.digest,
        variant="executorch-xnnpack-fp32-t2",
        policy={"warmup": 5, "half_width": 0.01},
        reference_id="reference",
        created="2026-02-03T04:05:06+00:00",
        measured=measured,
        reference_ms=2.25,
        reference_ci_low=2.2,
        reference_ci_high=2.3,
        noise_floor=0.0123,
        load_sd=0.004,
        misfit_sd=0.002,
        base_ms=BASE_MS,
        transfer_ms_per_mib=MS_PER_MIB,
        prior=(),
        heldout_error=HeldoutError(models=1, mape=0.25, within_5=0, within_10=0, kendall_tau=None),
        conformal=Conformal(half_width_90=0.02, half_width_95=0.04),
    )
    models = (
        model("heldout", LARGE, "heldout", predicted_ms / 1.25),
        model("reference", SMALL, "reference", 2.25),
    )
    return Lut(meta, tuple(sorted(rows, key=lambda row: row.key)), models, samples())


def evaluated(arch: Arch, accuracy: float, latency_ms: float, generation: int) -> Evaluated:
    return Evaluated(
        arch=arch.to_json(),
        accuracy=accuracy,
        latency_ms=latency_ms,
        latency_high_ms=1.1 * latency_ms,
        params=arch.params(),
        macs=arch.macs().conv_linear,
        generation=generation,
    )


def make_search(price: str = "price") -> SearchResult:
    found = (
        evaluated(SMALL, 0.5, 2.0, 0),
        evaluated(MIDDLE, 0.625, 4.0, 0),
        evaluated(LARGE, 0.875, 3.0, 1),
    )
    return SearchResult(
        space=SPACE.name,
        space_digest=SPACE.digest,
        evaluator="judge",
        price=price,
        constraints=Constraints(latency_ms=4.5),
        settings=SearchSettings(seed=77),
        coarse=CoarseStage(priced=100, feasible=60, skeletons=5, smallest_ms=1.75),
        history=(
            Generation(index=0, new=2, best=0.625, mean=0.5625),
            Generation(index=1, new=1, best=0.875, mean=0.875),
        ),
        evaluated=found,
        winner=found[2],
    )


def make_provenance(lut_sha256: str, lut_name: str = LUT_NAME) -> Provenance:
    return Provenance(
        luts=(LutPin(name=lut_name, sha256=lut_sha256),),
        checkpoint="c" * 64,
        data="npz:images.npz",
        data_digest="d" * 64,
        split="search",
        split_seed=0,
        split_fraction=0.1,
        code=CodeVersion(package="0.1.0", commit="1" * 40, sources="e" * 64),
    )


def compared(arch: Arch, measured_ms: float = 4.0) -> dict[str, Any]:
    return {
        "arch": arch.to_json(),
        "predicted_ms": 4.0,
        "predicted_low": 3.8,
        "predicted_high": 4.2,
        "measured_ms": measured_ms,
        "measured_low": 0.99 * measured_ms,
        "measured_high": 1.01 * measured_ms,
    }


def make_validation() -> dict[str, Any]:
    return {
        "lut": LUT_NAME,
        "device": "phone",
        "measured": "measured",
        "comparisons": [compared(SMALL, 4.0), compared(LARGE, 5.0)],
        "mape": 0.1,
        "max_error": 0.2,
        "within_2": 0.5,
        "within_5": 0.5,
        "within_10": 0.5,
        "kendall_tau": None,
        "coverage": 0.5,
        "noise_floor": 0.01,
        "reference_drift": 1.02,
    }


def make_measured(arch: Arch, **changes: Any) -> dict[str, Any]:
    row = compared(arch, 4.2) | {"accuracy": 0.875} | changes
    return {
        "device": "phone",
        "variant": "executorch-xnnpack-fp32-t2",
        "winner": arch.to_json(),
        "meets_budget": True,
        "models": [row],
    }


def make_checkpoint() -> dict[str, Any]:
    return {
        "space": SPACE.name,
        "space_digest": SPACE.digest,
        "classes": ["a", "b"],
        "recipe": {"name": "tiny-recipe", "epochs": 2, "batch_size": 4, "learning_rate": 0.01},
        "step": 20,
        "steps_per_epoch": 10,
        "loss": 1.5,
        "source": "npz:images.npz",
        "data_digest": "cd" * 32,
        "split_seed": 0,
        "split_fraction": 0.1,
        "image_side": 32,
        "weights_sha256": "ef" * 32,
        "tensors": f"supernet-{'0' * 16}.safetensors",
        "tensors_sha256": "12" * 32,
    }


def write_run(folder: Path, lut: Lut | None = None) -> LutStore:
    """A whole run under `folder`/run and its LUT in a store next to it."""
    store, run = LutStore([folder / "luts"]), folder / "run"
    (run / "search").mkdir(parents=True)
    (run / "supernet").mkdir()
    lut_folder = store.write(lut or make_lut())
    (run / "lut.txt").write_text(f"{lut_folder}\n")
    (run / "validation.json").write_text(json.dumps(make_validation()))
    (run / "supernet" / "checkpoint.json").write_text(json.dumps(make_checkpoint()))
    make_search(hashlib.sha256((lut_folder / "lut.json").read_bytes()).hexdigest()).save(
        run / "search" / "result.json"
    )
    (run / "search" / "winner.json").write_text(LARGE.to_json())
    (run / "search" / "measured.json").write_text(json.dumps(make_measured(LARGE)))
    return store
