"""A network of timm as one block, alone or with a detection or segmentation head.

It is trained, evaluated and exported like other networks; no LUT has an entry for it, and no key is parsed to
it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from luts.format.errors import UsageError, unknown
from search.blocks.ops import OpList
from search.blocks.sequence import count
from search.blocks.spec import BlockSpec, SideSpec, param

if TYPE_CHECKING:
    from torch import nn

WIDTHS: Mapping[str, tuple[str, float]] = {"mobilenetv1_075": ("mobilenetv1_100", 0.75)}
"""Widths of MobileNetV1 (Howard et al. 2017, table 6) that timm can generate but has no name for."""


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """A map that a network of timm outputs: its position, image pixels per map pixel, channels, side in pixels."""

    index: int
    stride: int
    channels: int
    side: int


REGISTERING = ("search.networks.mobile_former",)
"""Modules that register networks with timm when they are imported. By name: they build on what builds on blocks."""


def timm_with_ours() -> Any:
    """Return the module `timm`, with the networks registered that this package adds."""
    import timm  # imports torch

    for name in REGISTERING:
        importlib.import_module(name)
    return timm


def native_side(name: str) -> int:
    """Return the side in pixels of the images that a network of timm is made for; `NAME.TAG` are its weights.

    Raises:
        UsageError: timm has no such network.
    """
    timm = timm_with_ours()
    known = (*timm.list_models(), *WIDTHS)
    if name not in known and name not in timm.list_pretrained():
        raise UsageError(
            unknown("timm model", name, known, "all: python -c 'import timm; print(timm.list_models())'"),
            code="unknown_timm_model",
        )
    side: int = timm.get_pretrained_cfg(WIDTHS.get(name, (name, 1.0))[0]).input_size[-1]
    return side


def create_classifier(name: str, side: int, classes: int | None = None) -> nn.Module:
    """Create a network of timm with random weights for images of `side` pixels; its own classes if None.

    Raises:
        Exception: the network does not support images of this size; timm raises many kinds.
    """
    from timm.models import efficientnet

    head = {} if classes is None else {"num_classes": classes}
    if name in WIDTHS:
        module: nn.Module = efficientnet._gen_mobilenet_v1(*WIDTHS[name], **head)
        return module
    return _create(name, side, **head)


def _create(name: str, side: int, **options: Any) -> nn.Module:
    """Create a network of timm by its name with random weights for images of `side` pixels."""
    timm = timm_with_ours()
    module: nn.Module
    if side != native_side(name):
        with contextlib.suppress(TypeError):  # networks without position tables have no such argument
            module = timm.create_model(name, pretrained=False, img_size=side, **options)
            return module
    module = timm.create_model(name, pretrained=False, **options)
    return module


def create_backbone(name: str, side: int, indices: Sequence[int] | None = None) -> nn.Module:
    """Create timm's `features_only` network with random weights: from images to all maps, or those at `indices`.

    Raises:
        UsageError: the network outputs no maps or does not support images of this size.
    """
    native_side(name)
    if name in WIDTHS:
        raise UsageError(
            f"timm:{name} outputs no feature maps; use timm:{WIDTHS[name][0]}", code="no_feature_maps"
        )
    chosen: dict[str, Any] = {} if indices is None else {"out_indices": tuple(indices)}
    try:
        return _create(name, side, features_only=True, **chosen)
    except (TypeError, RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise UsageError(
            f"timm:{name} outputs no feature maps at {side} px ({_first_line(error)}); "
            "use a network with stages",
            code="no_feature_maps",
        ) from error


@functools.lru_cache(maxsize=64)
def feature_maps(name: str, side: int) -> tuple[FeatureMap, ...]:
    """Return the maps of a network of timm for images of `side` pixels; of maps of one size only the last.

    Raises:
        UsageError: the network outputs no maps or does not support images of this size.
    """
    import torch

    try:
        with torch.device("meta"), torch.no_grad():
            module = create_backbone(name, side).eval()
            maps = [as_channels_first(module, x) for x in module(torch.zeros(1, 3, side, side))]
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UsageError(
            f"timm:{name} does not support {side} px ({_first_line(error)}); use another resolution",
            code="unsupported_resolution",
        ) from error
    info: Any = module.feature_info
    by_side = {
        int(x.shape[-1]): FeatureMap(int(index), int(stride), int(x.shape[1]), int(x.shape[-1]))
        for index, stride, x in zip(info.out_indices, info.reduction(), maps, strict=True)
    }
    return tuple(by_side.values())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def as_channels_first(module: Any, x: Any) -> Any:
    """Return a map of a network of timm as (B, C, H, W); some networks output channels last."""
    last = str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC")
    return x.permute(0, 3, 1, 2) if last else x


@dataclasses.dataclass(frozen=True)
class TimmNetwork(BlockSpec):
    """A network of timm: a classifier, from images to scores, or with a head of detection or segmentation.

    Attributes:
        network: timm's name for it.
        head: Name of the head of another task; "" for a classifier.
        indices: Positions of the maps that the head reads, in timm's order.
        head_blocks: Blocks of the head: one predictor for each map before the last, then the blocks after the
            last.
    """

    kind = "timm"

    classes: int = param("classes")
    network: str = ""
    head: str = ""
    indices: tuple[int, ...] = ()
    head_blocks: tuple[BlockSpec, ...] = ()

    @cached_property
    def key(self) -> str:
        """Key that no LUT has: `timm.NAME(classes=10)@224` or `timm.NAME.ssdlite(classes=10)@320`."""
        name = f"{self.network}.{self.head}" if self.head else self.network
        return f"timm.{name}(classes={self.classes})@{self.resolution}"

    @property
    @override
    def in_channels(self) -> int:
        return 3

    @property
    @override
    def output_shape(self) -> tuple[int, ...]:
        if not self.head:
            return (1, self.classes)
        side = [block.output_shape for block in self.head_blocks if isinstance(block, SideSpec)]
        if not side:
            return self.head_blocks[-1].output_shape
        return (1, sum(shape[1] for shape in side), side[0][2])

    @override
    def params(self) -> int:
        import torch  # counted by creating it without storage

        with torch.device("meta"):
            network = (
                create_backbone(self.network, self.resolution, self.indices)
                if self.head
                else create_classifier(self.network, self.resolution, self.classes)
            )
        return sum(parameter.numel() for parameter in network.parameters()) + count(self.head_blocks)[0]

    @override
    def add_ops(self, ops: OpList) -> None:
        raise UsageError(
            f"timm:{self.network} has no list of operations to count costs from; "
            "`bench measure` counts its MACs as it runs",
            code="costs_unknown",
        )
