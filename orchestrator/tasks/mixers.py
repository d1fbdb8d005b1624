"""Token mixers, and layers of a ViT, side by side on a device at equal width and resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from luts.format.errors import BlocktimeError
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.session import Measurement
from orchestrator.plan.mixers import MIXERS, Mixer, cost_of_copy, mixers
from orchestrator.plan.plan import model_id
from orchestrator.tasks.measured import Setup, setup_of
from orchestrator.tasks.models import files_that_can_be
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.side_by_side import measure_files
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile


@dataclass(frozen=True)
class MixerCost:
    """A block at one resolution.

    Attributes:
        ms: What one more copy costs in a chain, with its 95 % interval.
        alone_ms: Latency of a model of this block alone.
        delegates: Of the block in the long chain, and what runs outside of them; None and empty where nothing is
            lowered here.
        rank: By latency among those of its family and number of tokens, 1 the fastest.
    """

    family: str
    block: str
    key: str
    resolution: int
    tokens: int
    ms: float
    ms_low: float
    ms_high: float
    alone_ms: float
    alone_low: float
    alone_high: float
    params: int
    conv_linear_macs: int
    total_macs: int
    ns_per_mac: float | None
    complexity: str
    delegates: int | None
    outside: str
    rank: int = 0


@dataclass(frozen=True)
class MixerComparison:
    """Blocks by latency, and a line for each that could not be measured."""

    setup: Setup
    created: str
    width: int
    left_out: tuple[str, ...]
    blocks: tuple[MixerCost, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "device": self.setup.device.model_dump(),
            "variant": self.setup.variant.name,
            "simulated": self.setup.simulated,
            "created": self.created,
            "width": self.width,
            "noise_floor": self.setup.noise_floor,
            "left_out": list(self.left_out),
            "blocks": [asdict(block) for block in self.blocks],
        }


def compare_mixers(
    target: Target | str,
    *,
    blocks: Sequence[str] = tuple(MIXERS),
    width: int = 64,
    resolutions: Sequence[int] = (16, 32),
    window: int = 8,
    budget_s: float = 300.0,
    seed: int = 0,
    self_test: bool = True,
    workers: int | None = None,
    keep: Callable[[MixerComparison], str] = lambda _: "measured",
    progress: Progress = silent,
) -> MixerComparison:
    """Rank blocks by what one more of each costs in a network, in one interleaved measurement.

    Args:
        target: The device; all else by default if it is its name alone.
        blocks: Names of `MIXERS`.
        width: Channels of all maps.
        resolutions: Sides of the maps.
        window: Side of attention's windows in pixels.
        budget_s: Seconds after which no further pass is begun.
        seed: Of the schedule.
        self_test: Ask the device first what settle runs and the company of other models cost.
        workers: Exporting processes; all cores by default.
        keep: Called with the result while the run still counts as unfinished; says in a line what became of it.
        progress: Told of every export and batch, and of blocks that are left out.

    Raises:
        UsageError: an unknown block, or a width, resolution or window out of bounds.
        BlocktimeError: no block is left to measure.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the device is too noisy.
    """
    chosen, refused = mixers(blocks, width, resolutions, window)
    target = Target.of(target)
    with target.found() as device:
        able, files, unexported = _files(target.variant, chosen, workers, progress)
        refused += unexported
        for line in refused:
            progress(Note(line))
        if not able:
            raise BlocktimeError(
                "no block is left to measure; choose other --blocks, --resolution or --window"
            )
        reference, variant = model_id(able[0].short), target.variant_on(device)
        measurement, run = measure_files(
            device,
            variant,
            files,
            reference,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            progress=progress,
        )
    broken = _broken(able, measurement)
    result = MixerComparison(
        setup_of(measurement, variant),
        measurement.header.created,
        width,
        (*refused, *broken),
        _costs(variant, able, measurement),
    )
    run.finish(keep(result))
    for line in broken:
        progress(Note(line))
    return result


def _files(
    variant: Variant, chosen: Sequence[Mixer], workers: int | None, progress: Progress
) -> tuple[list[Mixer], dict[str, ModelFile], list[str]]:
    """Blocks whose models there are, these models by id, and a line for each block that can't be exported."""
    specs = {name: variant.export_spec(keys) for mixer in chosen for name, keys in mixer.models.items()}
    files, _, reasons = files_that_can_be(variant, specs, workers, progress)
    failed = {
        mixer: next((reasons[name] for name in mixer.models if name in reasons), "") for mixer in chosen
    }
    able = [mixer for mixer in chosen if not failed[mixer]]
    lines = [_left_out(mixer, reason) for mixer, reason in failed.items() if reason]
    return able, {name: files[name] for mixer in able for name in mixer.models}, lines


def _broken(able: Sequence[Mixer], measurement: Measurement) -> list[str]:
    """A line for each block of which the device can't run a model."""
    return [
        _left_out(mixer, f"the device can't run {keys[0]}: {measurement.failures[name]}")
        for mixer in able
        for name, keys in mixer.models.items()
        if name in measurement.failures
    ]


def _left_out(mixer: Mixer, reason: str) -> str:
    return f"{mixer.name} left out at {mixer.block.resolution} px: {reason}"


def _costs(variant: Variant, able: Sequence[Mixer], measurement: Measurement) -> tuple[MixerCost, ...]:
    """Of each block and resolution that ran, the fastest of a resolution first."""
    runnable = [mixer for mixer in able if not mixer.models.keys() & measurement.failures.keys()]
    costs = [_cost(variant, mixer, measurement) for mixer in runnable]
    costs.sort(key=lambda cost: (cost.family == "layer", cost.tokens, cost.ms))
    return tuple(
        replace(cost, rank=1 + sum(_comparable(cost, other) and other.ms < cost.ms for other in costs))
        for cost in costs
    )


def _comparable(one: MixerCost, other: MixerCost) -> bool:
    return (one.family, one.tokens) == (other.family, other.tokens)


def _cost(variant: Variant, mixer: Mixer, measurement: Measurement) -> MixerCost:
    block, macs, scale = mixer.block, mixer.block.macs(), measurement.reference.ms
    cost = cost_of_copy(measurement.estimation, mixer)
    ms = cost.ms * scale
    ms_low, ms_high = measurement.reference.widen(ms, cost.low * scale, cost.high * scale)
    alone_ms, *ends = measurement.ms(model_id(mixer.alone))
    alone_low, alone_high = measurement.reference.widen(alone_ms, *ends)
    return MixerCost(
        family=mixer.family,
        block=mixer.name,
        key=block.key,
        resolution=block.resolution,
        tokens=mixer.tokens,
        ms=ms,
        ms_low=ms_low,
        ms_high=ms_high,
        alone_ms=alone_ms,
        alone_low=alone_low,
        alone_high=alone_high,
        params=block.params(),
        conv_linear_macs=macs.conv_linear,
        total_macs=macs.total,
        ns_per_mac=1e6 * ms / macs.total if macs.total else None,
        complexity=block.complexity,
        **_lowering(variant, mixer),
    )


def _lowering(variant: Variant, mixer: Mixer) -> Mapping[str, Any]:
    """Delegates of the block in the long chain, and what runs outside of them; nothing of a simulated one."""
    artifact = None if variant.is_simulated else ArtifactCache().get(variant.export_spec(mixer.long))
    if artifact is None or variant.runtime == "coreml":
        return {"delegates": None, "outside": ""}
    outside = " ".join(f"{name}x{count}" for name, count in artifact.report.operators)
    return {"delegates": artifact.report.delegates, "outside": outside}
