"""Token mixers, and layers of a ViT, compared on a device at equal width and resolution.

A block measured alone is a model of its own, with input and output. What one costs in a network is the
difference of two chains that differ only in the number of its copies, divided by the difference of copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from luts.estimate.latencies import LatencyEstimates, RemovalCost, removal_cost
from luts.format.errors import BlocktimeError, UsageError
from luts.format.table import Column, DrawnResult, Table
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.session import Measurement
from orchestrator.plan.plan import model_id
from orchestrator.tasks.measured import Setup, measure_files
from orchestrator.tasks.models import exportable_files
from orchestrator.tasks.options import MeasureOptions, budget, network_option
from orchestrator.tasks.parsing import parse_resolutions
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.target import Target
from search.blocks import BlockSpec, parse_key
from search.blocks.metaformer import MIXERS, MixerSetting
from search.blocks.vit import SelectingLayer, VitLayer

SHORT_CHAIN, LONG_CHAIN = 1, 3
"""Copies of a block: one, so that the maps between blocks have the same layouts in both chains and the
additional copies are inside a network; three, because a difference of one copy would be twice as
uncertain.
"""

CLASSES = 10
"""Classes of the chains' classifier, which cancels out."""

HEAD_DIM = 32
"""Channels of an attention head if a mixer has a choice, as in Swin and networks like MobileViT."""

MERGED_SHARE = 0.08
"""Fraction of tokens that a layer merges: ToMe's 16 of DeiT's 197."""

KEPT_SHARE = 0.7
"""Fraction of tokens that EViT keeps where it prunes (its section 4.1); here all layers that select tokens."""

MAX_WIDTH, MAX_RESOLUTION = 4096, 512


@dataclass(frozen=True)
class Setting:
    """What all blocks of one comparison share: channels, side of the map in pixels, and Swin's window."""

    width: int
    resolution: int
    window: int

    def __post_init__(self) -> None:
        """Check the bounds; raises UsageError."""
        if not 0 < self.width <= MAX_WIDTH or self.width % 4:
            raise UsageError(
                f"--width {self.width}: expected a multiple of 4 up to {MAX_WIDTH}", code="bad_width"
            )
        if not 0 < self.resolution <= MAX_RESOLUTION:
            raise UsageError(
                f"--resolution {self.resolution}: expected 1 to {MAX_RESOLUTION}", code="bad_resolution"
            )
        if not 0 < self.window <= MAX_RESOLUTION:
            raise UsageError(f"--window {self.window}: expected 1 to {MAX_RESOLUTION}", code="bad_window")

    @property
    def heads(self) -> int:
        """Number of heads of `HEAD_DIM` channels, or one of all channels."""
        return self.width // HEAD_DIM if self.width % HEAD_DIM == 0 else 1

    @property
    def tokens(self) -> int:
        """Number of tokens of a ViT's first layer: pixels and a class token."""
        return self.resolution**2 + 1

    @property
    def layer(self) -> str:
        """Common part of the keys of ViT layers."""
        return f"d={self.width},heads={self.heads},ratio=4,n={self.tokens}"


def kept_tokens(tokens: int) -> int:
    """Return how many tokens a layer that selects keeps besides the class token."""
    return max(1, math.ceil(KEPT_SHARE * (tokens - 1)))


def _merging(kind: str) -> Callable[[Setting], str]:
    return lambda s: f"vit.{kind}({s.layer},r={max(1, round(MERGED_SHARE * s.tokens))})@{s.resolution}"


def _selecting(kind: str) -> Callable[[Setting], str]:
    return lambda s: f"vit.{kind}({s.layer},k={kept_tokens(s.tokens)})@{s.resolution}"


OTHERS: dict[str, Callable[[Setting], str]] = {
    "cga": lambda s: (
        f"evit.cga(c={s.width},heads=4,qk=16,v={s.width // 4},kernels=5555,window={s.window})@{s.resolution}"
    ),
    "vit": lambda s: f"vit.layer({s.layer})@{s.resolution}",
    **{kind: _merging(kind) for kind in ("tome", "drop", "mlerp")},
    **{kind: _selecting(kind) for kind in ("evit", "topk", "scored", "merger", "idle")},
}
"""Block key by name: all but the token mixers. EfficientViT-M0 has four heads, 16 channels of queries in each and
5 x 5 convolutions over them. A plug-in adds its own.
"""


def block_names() -> tuple[str, ...]:
    """Return the names of all blocks."""
    return (*MIXERS, *OTHERS)


def named_block(name: str, setting: Setting) -> BlockSpec:
    """Return the block of a name; UsageError if it does not support the setting."""
    if name in OTHERS:
        return parse_key(OTHERS[name](setting))
    return MIXERS[name](MixerSetting(setting.resolution, setting.width, setting.heads, setting.window))


@dataclass(frozen=True)
class Mixer:
    """One block at one resolution, and the block keys of the three models that determine its latency."""

    name: str
    block: BlockSpec

    @property
    def tokens(self) -> int:
        """Number of pixels of the map."""
        return self.block.resolution**2

    @property
    def family(self) -> Literal["mixer", "layer"]:
        """What it can be compared with: a ViT's layer has an MLP, norms and residuals besides its attention."""
        return "layer" if isinstance(self.block, VitLayer) else "mixer"

    @property
    def alone(self) -> tuple[str, ...]:
        """The block as a network of its own."""
        return (self.block.key,)

    @property
    def short(self) -> tuple[str, ...]:
        """The chain with the fewest copies."""
        return self._chain(SHORT_CHAIN)

    @property
    def long(self) -> tuple[str, ...]:
        """The chain with the most copies."""
        return self._chain(LONG_CHAIN)

    def _chain(self, copies: int) -> tuple[str, ...]:
        width, side = self.block.in_channels, self.block.resolution
        stem, head = f"conv(in=3,out={width},k=3,s=1)@{side}", f"head.fc(in={width},classes={CLASSES})"
        if isinstance(self.block, VitLayer):
            layers = [layer.key for layer in _following(self.block, copies)]
            return (stem, f"vit.shell(d={width})@{side}", *layers, f"{head}@1")
        return (stem, *[self.block.key] * copies, f"{head}@{side}")

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """All three by model id."""
        return {model_id(blocks): blocks for blocks in (self.short, self.long, self.alone)}


def _following(layer: VitLayer, copies: int) -> Iterator[VitLayer]:
    """Yield the layer and further ones of its kind, each with the tokens that the one before leaves."""
    for _ in range(copies):
        yield layer
        left = layer.tokens_out
        if isinstance(layer, SelectingLayer):
            layer = replace(layer, tokens=left, kept=kept_tokens(left))
        else:
            layer = replace(layer, tokens=left)


def mixers(
    names: Sequence[str], width: int, resolutions: Sequence[int], window: int
) -> tuple[list[Mixer], list[str]]:
    """Return blocks by resolution, and a line for each that does not support one; UsageError if unknown."""
    foreign = [name for name in names if name not in block_names()]
    if foreign:
        raise UsageError(
            f"unknown block {foreign[0][:40]!r}; known: {', '.join(block_names())}", code="unknown_block"
        )
    chosen, refused = [], []
    for resolution in resolutions:
        setting = Setting(width, resolution, window)
        for name in names:
            try:
                chosen.append(Mixer(name, named_block(name, setting)))
            except UsageError as error:
                refused.append(f"{name} excluded at {resolution} px: {error}")
    return chosen, refused


def cost_of_copy(estimation: LatencyEstimates, mixer: Mixer) -> RemovalCost:
    """Return what one copy adds to a chain, in units of the reference's latency."""
    long, short = model_id(mixer.long), model_id(mixer.short)
    cost = removal_cost(estimation, long, short)
    copies = LONG_CHAIN - SHORT_CHAIN
    return RemovalCost(cost.ms / copies, cost.se / copies, cost.low / copies, cost.high / copies)


@dataclass(frozen=True)
class MixerCost:
    """A block at one resolution.

    Attributes:
        ms: Cost of one more copy in a chain, with its 95 % interval.
        alone_ms: Latency of a model of this block alone.
        delegates: Delegates of the long chain; None if nothing is lowered here.
        outside: Operators outside the delegates, with their counts.
        rank: Rank by latency within family and number of tokens, 1 the fastest.
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


def parse_blocks(text: str, _flag: str = "--blocks") -> tuple[str, ...]:
    """Return the names of `mha,window`, each once; `mixers` checks them."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


@dataclass(frozen=True, kw_only=True)
class BlocksCommand(MeasureOptions):
    """Rank token mixers, and ViT layers that drop tokens, by latency at equal width and resolution.

    The latency is what one more copy costs in a network: chains of one and of three copies are measured together,
    and their difference is the cost of two.
    """

    target: Target
    resolutions: tuple[int, ...] = network_option(
        (16, 32),
        "Sides of the maps in pixels, separated by commas.",
        flag="--resolution",
        parse=parse_resolutions,
        shown="16,32",
        metavar="PIXELS",
    )
    width: int = network_option(64, "Channels of all maps.")
    blocks: tuple[str, ...] = network_option(
        block_names(),
        f"Blocks to rank, of {','.join(block_names())}.",
        parse=parse_blocks,
        shown="all",
        metavar="BLOCKS",
    )
    window: int = network_option(8, "Side of attention's windows in pixels.")
    budget_s: float = budget("5m")


@dataclass(frozen=True)
class MixerComparison(DrawnResult):
    """Blocks by latency, and a line for each that could not be measured."""

    setup: Setup
    created: str
    width: int
    left_out: tuple[str, ...]
    blocks: tuple[MixerCost, ...]

    COLUMNS: ClassVar = (
        Column("tokens", "tokens N"),
        Column("rank", "rank"),
        Column("block", "block"),
        Column("ms", "ms", 4),
        Column("ms_low", "95 % low", 4),
        Column("ms_high", "high", 4),
        Column("alone_ms", "alone ms", 4, spare=3),
        Column("params", "parameters", counted=True, spare=2),
        Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=2),
        Column("total_macs", "all MACs", counted=True, spare=4),
        Column("ns_per_mac", "ns per MAC", 4, spare=5),
        Column("complexity", "MACs in tokens N, channels d", spare=6),
    )

    @property
    def title(self) -> str:
        """Title of tables and picture."""
        setup = self.setup
        return f"{setup.target}, {setup.variant.name}, {self.width} channels{setup.warning}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
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

    def report(self) -> Iterator[Table | str]:
        """Yield a table for token mixers and one for ViT layers, and what runs outside of the delegates."""
        for family, plural in (("mixer", "token mixers"), ("layer", "layers of a ViT")):
            if rows := [asdict(cost) for cost in self.blocks if cost.family == family]:
                yield Table(f"{self.title}: {plural}", self.COLUMNS, rows)
        for cost in self.blocks:
            if cost.outside:
                yield (
                    f"{cost.block} at {cost.resolution} px: outside its {cost.delegates} delegates, in three "
                    f"copies: {cost.outside}"
                )
        yield (
            "ms: cost of one more copy in a chain, with as many tokens as the one before leaves; "
            "alone: a model of one block, with its input and output"
        )
        yield f"noise floor {100 * self.setup.noise_floor:.2f} % between two loads"

    def draw(self) -> Any:
        """Draw the costs of all blocks."""
        from orchestrator.report.figures import blocks_figure

        return blocks_figure(self.to_dict()["blocks"], self.title)


def compare_mixers(options: BlocksCommand, progress: Progress = silent) -> MixerComparison:
    """Rank blocks by what one more copy of each costs in a network, in one interleaved measurement.

    Raises:
        UsageError: an unknown block, or a width, resolution or window out of bounds.
        BlocktimeError: no block is left to measure; else as `measure_networks`.
    """
    target = options.target
    chosen, left_out = mixers(options.blocks, options.width, options.resolutions, options.window)
    with target.found() as device:
        specs = {
            name: target.variant.export_spec(keys) for mixer in chosen for name, keys in mixer.models.items()
        }
        files, _, unexported = exportable_files(target.variant, specs, options.workers, progress)
        able, lines = _split(chosen, unexported)
        left_out += lines
        for line in left_out:
            progress(Note(line))
        if not able:
            raise BlocktimeError(
                "no block is left to measure; choose other --blocks, --resolution or --window",
                code="no_block_left",
            )
        variant = target.variant_on(device)
        files = {name: files[name] for mixer in able for name in mixer.models}
        measurement, run = measure_files(
            device, variant, files, model_id(able[0].short), options, progress=progress
        )
    run.finish("measured")
    measured, lines = _split(
        able, {name: f"the device can't run it: {why}" for name, why in measurement.failures.items()}
    )
    for line in lines:
        progress(Note(line))
    return MixerComparison(
        Setup.of(measurement, variant, target.device),
        measurement.header.created,
        options.width,
        (*left_out, *lines),
        _ranked([_cost(variant, mixer, measurement) for mixer in measured]),
    )


def _split(chosen: Sequence[Mixer], reasons: Mapping[str, str]) -> tuple[list[Mixer], list[str]]:
    """Return the blocks without a model among `reasons` (by model id), and a line for each other block."""
    able, lines = [], []
    for mixer in chosen:
        reason = next((reasons[name] for name in mixer.models if name in reasons), None)
        if reason is None:
            able.append(mixer)
        else:
            lines.append(f"{mixer.name} left out at {mixer.block.resolution} px: {reason}")
    return able, lines


def _ranked(costs: list[MixerCost]) -> tuple[MixerCost, ...]:
    """Return costs by family and resolution, the fastest first, with their ranks."""
    costs.sort(key=lambda cost: (cost.family == "layer", cost.tokens, cost.ms))
    return tuple(
        replace(cost, rank=1 + sum(_comparable(cost, other) and other.ms < cost.ms for other in costs))
        for cost in costs
    )


def _comparable(one: MixerCost, other: MixerCost) -> bool:
    return (one.family, one.tokens) == (other.family, other.tokens)


def _cost(variant: Variant, mixer: Mixer, measurement: Measurement) -> MixerCost:
    block, macs, scale = mixer.block, mixer.block.macs(), measurement.reference.ms
    cost = cost_of_copy(measurement.estimates, mixer)
    ms = cost.ms * scale
    ms_low, ms_high = measurement.reference.widen(ms, cost.low * scale, cost.high * scale)
    alone_ms, alone_low, alone_high = measurement.ms_with_reference(model_id(mixer.alone))
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
    """Return the delegates of the block's long chain, and the operators outside; none if simulated."""
    artifact = None if variant.is_simulated else ArtifactCache().get(variant.export_spec(mixer.long))
    if artifact is None or variant.runtime == "coreml":
        return {"delegates": None, "outside": ""}
    outside = " ".join(f"{name}x{count}" for name, count in artifact.report.operators)
    return {"delegates": artifact.report.delegates, "outside": outside}
