"""Networks of commands: of our blocks, of timm, or names of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from luts.format.errors import BlocktimeError, UsageError, unknown
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.counting import Counts, count_module
from orchestrator.tasks.options import argument, network_option, resolution_option
from orchestrator.tasks.progress import Note, Progress
from orchestrator.tasks.quantization import stays_fp32
from search.spaces import (
    STDIN,
    Arch,
    Published,
    get_arch,
    is_arch_file,
    list_archs,
    list_published,
    load_arch,
)
from search.spaces.registry import is_timm, with_task
from search.spaces.space import MAX_CLASSES
from search.spaces.stages import TaskName

Network = Arch | Published | str
"""One of our blocks, or `timm:NAME[@PX]`."""

Networks = Network | Sequence[Network] | Mapping[str, Network]
"""One, several, or by what they are called. Where they are not called anything, the name of a network of our blocks
or the JSON file of an architecture is a network too."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Networks of a command, by name or file or as objects."""

    networks: Networks = argument(
        (),
        "Network by name, JSON file of an architecture (-: stdin), or timm:NAME.",
        metavar="NETWORK",
        flag="--model --arch",
        repeated=True,
    )
    task: str | None = network_option(
        None, "detection or segmentation: use that head (or name it: NAME.ssdlite20)."
    )
    classes: int | None = network_option(
        None,
        "Categories of --task, without the background.",
        minimum=1,
        maximum=MAX_CLASSES,
        shown="80 or 20",
    )
    resolution: int | None = resolution_option()

    def named(self) -> dict[str, Network]:
        """Return the networks by name, with the task's head and at the resolution.

        Raises:
            UsageError: an unknown network or task, or a resolution that a network can't take.
            InvalidArtifactError: a damaged file of an architecture.
        """
        networks = by_name(for_task(self.networks, self.task, self.classes))
        return {name: at_resolution(name, network, self.resolution) for name, network in networks.items()}


def named_network(name: str) -> Network:
    """Return the network of our blocks with this name; `timm:NAME` is returned as it is and checked by the export.

    Raises:
        UsageError: neither.
    """
    if name.startswith("timm:"):
        return name
    if name not in list_published() and TaskName.parse(name):
        return get_arch(name)
    known: dict[str, Arch | Published] = {**list_archs(), **list_published()}
    if name not in known:
        raise UsageError(
            unknown("network", name, known, "all: bench arch list; or timm:NAME"), code="unknown_network"
        )
    return known[name]


def as_named(arch: Arch) -> Network:
    """Return an architecture as it is exported and counted: a timm network by its name."""
    if not is_timm(arch.space):
        return arch
    task = TaskName.parse(arch.space)
    return str(TaskName(task.base, task.head, arch.classes)) if task else arch.space


def for_task(networks: Networks, task: str | None, classes: int | None) -> Networks:
    """Return networks with the head of a task, which their names then say; without a task, the same networks.

    `classes` do not include the background; by default they are as many as COCO or VOC has.

    Raises:
        UsageError: a task that there is not, a network of no space, or maps that are too small for the head.
        InvalidArtifactError: a damaged file of an architecture.
    """
    if task is None:
        if classes is not None:
            raise UsageError(
                "--classes goes with --task; add --task detection or segmentation",
                code="classes_without_task",
            )
        return networks
    named: dict[str, Network] = {}
    for name in [networks] if isinstance(networks, Network) else networks:
        if not isinstance(name, str):
            raise UsageError("--task takes networks by name or file", code="network_without_name")
        if name in list_published():
            raise UsageError(
                f"{name} has no feature maps: it is not of a search space; use a network of a space or of timm",
                code="no_feature_maps",
            )
        arch = with_task(load_arch(name), task, classes)
        known = TaskName.parse(arch.space)
        plain = "stdin" if name == STDIN else name.removesuffix(".json")
        called = str(TaskName(plain, known.head, arch.classes)) if known else plain
        named[called] = as_named(arch)
    return named


def by_name(networks: Networks) -> dict[str, Network]:
    """Return networks by name; a network without a name gets that of its architecture or file.

    Raises:
        UsageError: a name that no network has.
        InvalidArtifactError: a damaged file of an architecture.
    """
    if isinstance(networks, Mapping):
        return dict(networks)
    if isinstance(networks, Network):
        networks = [networks]
    return {_name(network): read_network(network) for network in networks}


def _name(network: Network) -> str:
    if isinstance(network, str):
        return "stdin" if network == STDIN else network
    if isinstance(network, Published):
        return network.name
    if is_timm(network.space):
        return network.space
    return next((name for name, arch in list_archs().items() if arch == network), network.digest)


def read_network(network: Network) -> Network:
    """Return the network of a name, `timm:NAME` or an architecture's file; other networks unchanged.

    Raises:
        UsageError: a name that no network has; `timm:NAME` is checked where it is built.
        InvalidArtifactError: a damaged file.
    """
    if not isinstance(network, str):
        return network
    return as_named(load_arch(network)) if is_arch_file(network) else named_network(network)


def at_resolution(name: str, network: Network, resolution: int | None) -> Network:
    """Return a network at another input resolution; unchanged for None.

    Raises:
        UsageError: its space does not have that resolution, or it is of one resolution only.
    """
    if isinstance(network, str):
        return network if resolution is None else f"{network.partition('@')[0]}@{resolution}"
    if resolution is None or resolution == network.resolution:
        return network
    sizes = network.search_space.resolutions if isinstance(network, Arch) else (network.resolution,)
    if not isinstance(network, Arch) or resolution not in sizes:
        known = ", ".join(str(side) for side in sizes)
        raise UsageError(f"{name} can't take {resolution} px; it takes {known} px", code="unknown_resolution")
    return network.with_resolution(resolution)


def spec_of(network: Network, variant: Variant, fp32: Sequence[str] = ()) -> ExportSpec:
    """Return how a network is exported for a variant; `fp32` is what mixed precision keeps (`stays_fp32`)."""
    if isinstance(network, str):
        return variant.export_spec(module=network, fp32=stays_fp32(fp32, (), network))
    return variant.export_spec(network.keys(), fp32=stays_fp32(fp32, network.keys(), ""))


def count_timm(network: str) -> tuple[Counts, int]:
    """Return parameters and MACs of `timm:NAME[@PX]`, and the side of its input in pixels.

    Raises:
        UsageError: timm does not have it, or it can't take these pixels.
    """
    from orchestrator.export.lower.source import build_module  # brings torch

    module, inputs = build_module(ExportSpec(module=network))
    return count_module(module, inputs), int(inputs[0].shape[-1])


def count_networks(
    networks: Mapping[str, Network], specs: Mapping[str, ExportSpec], progress: Progress
) -> dict[str, Counts]:
    """Return parameters and MACs of every network that can be built: from blocks, or by running the module."""
    counts: dict[str, Counts] = {}
    for name, network in networks.items():
        if not isinstance(network, str):
            macs = network.macs()
            counts[name] = Counts(network.params(), macs.conv_linear, macs.total)
            continue
        from orchestrator.export.lower.source import build_module  # brings torch

        try:
            counts[name] = count_module(*build_module(replace(specs[name], batch=1)))
        except BlocktimeError as error:
            progress(Note(f"{name} can't be counted: {error}"))
    return counts
