"""Search spaces and architectures: their choices, sizes, blocks, and the latencies that they can reach."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.operators import Operator
from luts.format.table import Column, Table
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.counting import Counts
from orchestrator.export.lower.operators import read_operators
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import Network, count_timm, read_network, spec_of
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, option
from orchestrator.tasks.progress import Progress, silent
from search.algorithms import Constraints, LutPrice, latency_bounds
from search.blocks import BlockSpec, count
from search.spaces import Arch, Published, Space, get_space, list_archs, list_published, list_spaces
from search.spaces.scope import covered_space

SAMPLES = 2000
"""Random architectures behind the ranges of parameters and MACs."""

CONFIDENCE = 0.95
"""Confidence of the latencies' upper bounds."""


def space_table() -> Table:
    """Return all spaces with their sizes."""
    columns = (
        Column("space", "space"),
        Column("architectures", "architectures"),
        Column("stages", "stages"),
        Column("resolutions", "resolutions"),
        Column("block_keys", "block keys"),
        Column("named", "named architectures", spare=1),
    )
    return Table("", columns, [_space_row(space) for space in list_spaces()])


def _space_row(space: Space) -> dict[str, Any]:
    return {
        "space": space.name,
        "architectures": space.size(),
        "stages": " or ".join(str(n) for n in space.stage_counts),
        "resolutions": " ".join(str(r) for r in space.resolutions),
        "block_keys": len(space.block_specs()),
        "named": " ".join(name for name, arch in list_archs().items() if arch.space == space.name),
    }


@dataclass(frozen=True, kw_only=True)
class SpaceShowOptions(StoreOptions):
    """Show a space's choices, its size, and its ranges of parameters, MACs and latency by a LUT."""

    space: str = argument(REQUIRED, "Name of a space.", metavar="SPACE")
    lut: str | None = option(None, "Also show the latencies that can be reached by this LUT.")
    sharing: bool = option(False, "Also show how many parameters subnets share.")


@dataclass(frozen=True)
class SpaceView:
    """A space, the ranges of random architectures, reachable latencies and shared parameters where requested."""

    space: Space
    params: list[int]
    conv_linear_macs: list[int]
    lut: str | None = None
    reach: Sequence[dict[str, Any]] | None = None
    shared: Sequence[dict[str, Any]] | None = None

    CHOICES: ClassVar = (Column("stage", "stage"), Column("choices", "searched"), Column("fixed", "fixed"))
    SHARED: ClassVar = (
        Column("supernet", "supernet"),
        Column("subnets", "random subnets"),
        Column("smallest", "least parameters"),
        Column("largest", "most parameters"),
        Column("shared", "shared by all"),
        Column("efficiency", "sharing efficiency E", 3),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the space with all its stages."""
        document = _space_row(self.space) | {
            "digest": self.space.digest,
            "heads": " ".join(self.space.heads),
            "params_sampled": self.params,
            "conv_linear_macs_sampled": self.conv_linear_macs,
            "stages": [
                {"stage": stage.name, "kind": stage.kind}
                | {name: [stage.shown(name, v) for v in values] for name, values in stage.choices}
                | {"fixed": dict(stage.fixed)}
                for stage in self.space.stages
            ],
        }
        named = {"reach": self.reach, "sharing": self.shared}
        return document | {name: rows for name, rows in named.items() if rows is not None}

    def report(self) -> Iterator[Table | str]:
        """Yield the choices and sizes, then latencies and shared parameters."""
        rows = [
            {
                "stage": stage.name,
                "choices": "  ".join(
                    f"{n} {{{', '.join(str(stage.shown(n, v)) for v in vs)}}}" for n, vs in stage.choices
                ),
                "fixed": "  ".join(f"{n} {v:g}" for n, v in stage.fixed),
            }
            for stage in self.space.stages
        ]
        row = _space_row(self.space)
        yield Table(f"{self.space.name}: {self.space.size():,} architectures", self.CHOICES, rows)
        yield (
            f"resolutions {row['resolutions']}, heads {' '.join(self.space.heads)}, stages {row['stages']}, "
            f"{row['block_keys']} block keys"
        )
        yield (
            f"{SAMPLES} random architectures at {self.space.default_resolution} px: "
            f"{_range(self.params, 1e6)} M parameters, {_range(self.conv_linear_macs, 1e9)} G conv+linear MACs"
        )
        if self.reach is not None:
            columns = (
                Column("what", f"exact, by {self.lut}"),
                Column("latency_ms", "ms", 3),
                Column("latency_high_ms", f"at most ms, {CONFIDENCE:.0%}", 3),
                Column("params", "parameters", counted=True),
                Column("macs", "conv+linear MACs", counted=True),
            )
            yield Table("", columns, self.reach)
        if self.shared is not None:
            yield Table("", self.SHARED, self.shared)


def show_space(options: SpaceShowOptions, progress: Progress = silent) -> SpaceView:
    """Return a space with the sizes of `SAMPLES` random architectures, the same at every call.

    Raises:
        UsageError: an unknown space, or a LUT that is unknown, of another space or lacks blocks.
    """
    space, store = get_space(options.space), options.open_store(progress)
    rng = random.Random(0)
    costs = [count(space.sample(rng, (space.default_resolution,)).blocks()) for _ in range(SAMPLES)]
    params, macs = [params for params, _ in costs], [macs.conv_linear for _, macs in costs]
    return SpaceView(
        space,
        [min(params), max(params)],
        [min(macs), max(macs)],
        options.lut,
        _reachable_latencies(space, store.load(options.lut), options.lut) if options.lut else None,
        _sharing(space) if options.sharing else None,
    )


def _range(ends: Sequence[int], unit: float) -> str:
    return " to ".join(f"{end / unit:.3f}" for end in ends)


def _reachable_latencies(space: Space, lut: Lut, name: str) -> list[dict[str, Any]]:
    """Return the fastest and the slowest architecture, and three with the most MACs for their latency."""
    if lut.meta.space != space.name:
        raise UsageError(
            f"{name} is of space {lut.meta.space}, not of {space.name}; use a LUT of {space.name}",
            code="wrong_space",
        )
    constraints = Constraints(latency_ms=1, cautious=False, confidence=CONFIDENCE)
    bounds = latency_bounds(covered_space(lut), LutPrice(lut.latency_model, ""), constraints)
    front = bounds.most_macs
    between = [front[round(share * (len(front) - 1))] for share in (0.25, 0.5, 0.75)]
    named = [
        ("fastest", bounds.smallest),
        *(("most MACs for its latency", priced) for priced in between),
        ("slowest", bounds.largest),
    ]
    fields = ("latency_ms", "latency_high_ms", "params", "macs", "arch")
    return [{"what": what} | {field: getattr(priced, field) for field in fields} for what, priced in named]


def _sharing(space: Space) -> list[dict[str, Any]]:
    """Return the sharing of one supernet of the space, and of three for three ranges of parameters."""
    from search.supernet.inherit import partition, sharing

    return [
        {"supernet": f"{index + 1} of {count}"} | asdict(sharing(space, archs))
        for count in (1, 3)
        for index, archs in enumerate(partition(space, count))
    ]


def arch_table() -> Table:
    """Return the named networks: architectures of spaces, and published networks."""
    named: dict[str, Arch | Published] = {**list_archs(), **list_published()}
    columns = (
        Column("arch", "architecture"),
        Column("space", "space"),
        Column("resolution", "px"),
        Column("params", "parameters", counted=True),
    )
    rows = [
        {
            "arch": name,
            "space": network.space if isinstance(network, Arch) else None,
            "resolution": network.resolution,
            "params": network.params(),
        }
        for name, network in named.items()
    ]
    return Table("", columns, rows)


@dataclass(frozen=True, kw_only=True)
class ShowArchOptions:
    """Show parameters, MACs (both counts) and block keys of a network; of timm networks the sums only."""

    arch: str = argument(
        REQUIRED,
        "Network by name, timm:NAME, an architecture's JSON file, or a .pte with --operators.",
        metavar="NETWORK",
    )
    operators: bool = option(
        False, "Show the operators that XNNPACK and ExecuTorch run instead; networks are exported in fp32."
    )


@dataclass(frozen=True)
class ArchView:
    """A network with its costs; `blocks` are empty for timm networks."""

    name: str
    network: Network
    resolution: int
    counts: Counts
    blocks: tuple[BlockSpec, ...] = ()

    COLUMNS: ClassVar = (
        Column("key", "block", key=True),
        Column("params", "parameters", counted=True),
        Column("conv_linear_macs", "conv+linear MACs", counted=True),
        Column("all_macs", "all MACs", counted=True),
    )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The blocks."""
        return [
            {
                "key": block.key,
                "params": block.params(),
                "conv_linear_macs": block.macs().conv_linear,
                "all_macs": block.macs().total,
            }
            for block in self.blocks
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what the network is, its costs and its blocks."""
        _, identity = self._identity
        return {**identity, "resolution": self.resolution, **asdict(self.counts), "blocks": self.rows}

    def report(self) -> Iterator[Table | str]:
        """Yield the blocks and the sums."""
        title = f"{self.name} ({self._identity[0]}, {self.resolution} px)"
        yield Table(title, self.COLUMNS, self.rows) if self.blocks else title
        counts = self.counts
        yield (
            f"{counts.params / 1e6:.3f} M parameters, {counts.conv_linear_macs / 1e9:.3f} G conv+linear MACs "
            f"(the papers' FLOPs), {counts.all_macs / 1e9:.3f} G with attention's products"
        )

    @property
    def _identity(self) -> tuple[str, dict[str, Any]]:
        """Where the network comes from, and its identity."""
        network = self.network
        if isinstance(network, str):
            return "timm", {"timm": network.removeprefix("timm:")}
        if isinstance(network, Published):
            return network.source, {"published": network.name, "source": network.source}
        return network.space, {"arch": network.to_document(), "digest": network.digest}


@dataclass(frozen=True)
class OperatorList:
    """Operators of an exported network, in the order in which they run."""

    name: str
    operators: tuple[Operator, ...]

    COLUMNS: ClassVar = (
        Column("key", "operator", key=True),
        Column("count", "count"),
        Column("macs", "MACs", counted=True),
        Column("traffic_bytes", "bytes moved", counted=True),
        Column("params", "weights", counted=True),
    )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each operator once with its count, its costs times that; most MACs, then most bytes first."""
        rows = [
            {"key": operator.key, "kind": operator.kind, "count": count}
            | {name: count * getattr(operator.features, name) for name in ("macs", "traffic_bytes", "params")}
            for operator, count in Counter(self.operators).items()
        ]
        return sorted(rows, key=lambda row: (-row["macs"], -row["traffic_bytes"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the operators, each once, and their sums."""
        rows = self.rows
        sums = {name: sum(row[name] for row in rows) for name in ("count", "macs", "traffic_bytes", "params")}
        return {"name": self.name, **sums, "operators": rows}

    def report(self) -> Iterator[Table | str]:
        """Yield the operators and the sums."""
        document, kinds = self.to_dict(), Counter(operator.kind for operator in self.operators)
        outside = sum(count for kind, count in kinds.items() if kind.startswith("portable."))
        yield Table(self.name, self.COLUMNS, document["operators"])
        yield (
            f"{document['count']} operators in {kinds['border']} delegates and {outside} outside, "
            f"{document['macs'] / 1e9:.3f} G MACs, {document['params'] / 1e6:.3f} M weights"
        )


def show_arch(options: ShowArchOptions, progress: Progress = silent) -> ArchView | OperatorList:
    """Return a network with its costs, or its operators, for which it is exported if the cache does not have it.

    Raises:
        UsageError: an unknown network.
        BlocktimeError: it can't be exported, or a file has no operators that are known.
    """
    if options.arch.endswith(".pte"):
        if not options.operators:
            raise UsageError(f"{options.arch} has operators alone; add --operators", code="operators_only")
        return OperatorList(options.arch, read_operators(Path(options.arch)))
    network = read_network(options.arch)
    if options.operators:
        specs = {options.arch: spec_of(network, Variant("executorch", "xnnpack"))}
        exported = export_all(specs, progress=progress)[options.arch]
        return OperatorList(options.arch, read_operators(exported.path))
    if isinstance(network, str):
        counts, resolution = count_timm(network)
        return ArchView(options.arch, network, resolution, counts)
    blocks = network.blocks()
    params, macs = count(blocks)
    return ArchView(
        options.arch, network, network.resolution, Counts(params, macs.conv_linear, macs.total), blocks
    )


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Print the JSON of a random architecture."""

    space: str = argument(REQUIRED, "Name of a space.", metavar="SPACE")
    seed: int = option(0, "Random seed.")
    resolution: int | None = option(None, "Side of the input image in pixels.", shown="random")


def sample_arch(options: SampleOptions, progress: Progress = silent) -> str:  # noqa: ARG001
    """Return the JSON of a random architecture of a space."""
    whole = get_space(options.space)
    space = whole if options.resolution is None else whole.restricted((options.resolution,))
    return space.sample(random.Random(options.seed)).to_json()
