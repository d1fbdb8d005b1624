"""A network of timm with a head of another task, as one block; no LUT has it, and no key is parsed to it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from luts.format.errors import UsageError
from search.blocks.sequence import count
from search.blocks.spec import BlockSpec, SideSpec
from search.blocks.whole import WIDTHS, WholeNetwork, timm_side

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class TimmMap:
    """A map that a network of timm hands out: its place among them, stride, channels, side in pixels."""

    index: int
    stride: int
    channels: int
    side: int


def create_timm_maps(name: str, side: int, indices: Sequence[int] | None = None) -> nn.Module:
    """timm's `features_only` network with random weights: from images to a list of maps, all by default.

    Raises:
        UsageError: it hands out none, or can't take these pixels.
    """
    import timm

    native = timm_side(name)
    if name in WIDTHS:
        raise UsageError(
            f"timm:{name} hands out no maps: timm has no network of this name; take timm:{WIDTHS[name][0]}"
        )
    chosen: dict[str, Any] = {} if indices is None else {"out_indices": tuple(indices)}
    sized = [{"img_size": side}, {}] if side != native else [{}]
    for size in sized:
        try:
            module: nn.Module = timm.create_model(
                name, pretrained=False, features_only=True, **chosen, **size
            )
        except TypeError as error:  # networks without tables of positions take no `img_size`
            refusal: Exception = error
        except (RuntimeError, ValueError, AttributeError, AssertionError) as error:
            refusal = error
            break
        else:
            return module
    reason = (str(refusal).strip().splitlines() or [type(refusal).__name__])[0][:160]
    raise UsageError(f"timm:{name} hands out no maps at {side} px ({reason}); take a network with stages")


@functools.lru_cache(maxsize=64)
def timm_maps(name: str, side: int) -> tuple[TimmMap, ...]:
    """The maps of a network of timm for images of `side` pixels; of those of one size the last.

    Raises:
        UsageError: it hands out none, or can't take these pixels.
    """
    import torch

    try:
        with torch.device("meta"), torch.no_grad():
            module = create_timm_maps(name, side).eval()
            maps = [as_channels_first(module, x) for x in module(torch.zeros(1, 3, side, side))]
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(f"timm:{name} can't take {side} px ({first})") from error
    told: Any = module.feature_info
    by_side = {
        int(x.shape[-1]): TimmMap(int(index), int(stride), int(x.shape[1]), int(x.shape[-1]))
        for index, stride, x in zip(told.out_indices, told.reduction(), maps, strict=True)
    }
    return tuple(by_side.values())


def as_channels_first(module: Any, x: Any) -> Any:
    """A map (B, C, H, W) of a network of timm, some of which give channels last."""
    last = str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC")
    return x.permute(0, 3, 1, 2) if last else x


@dataclasses.dataclass(frozen=True)
class WholeTaskNetwork(WholeNetwork):
    """From images to a detector's boxes or to logits of every place.

    Attributes:
        head: Its name.
        indices: Of the maps that it takes, in timm's order.
        head_blocks: What follows them: as many blocks beside maps as there are maps before the last, then the rest.
    """

    head: str = ""
    indices: tuple[int, ...] = ()
    head_blocks: tuple[BlockSpec, ...] = ()

    @cached_property
    def key(self) -> str:
        """Not one that a LUT knows: `timm.NAME.ssdlite(classes=10)@320`."""
        return f"timm.{self.network}.{self.head}(classes={self.classes})@{self.resolution}"

    @property
    def out_channels(self) -> int:
        return self.head_blocks[-1].out_channels

    @property
    def output_shape(self) -> tuple[int, ...]:
        beside = [block.output_shape for block in self.head_blocks if isinstance(block, SideSpec)]
        if not beside:
            return self.head_blocks[-1].output_shape
        return (1, sum(shape[1] for shape in beside), beside[0][2])

    def params(self) -> int:
        import torch  # counted by building it without storage

        with torch.device("meta"):
            backbone = create_timm_maps(self.network, self.resolution, self.indices)
        return sum(parameter.numel() for parameter in backbone.parameters()) + count(self.head_blocks)[0]
