"""A network of timm as one block, to be trained, judged and exported; no LUT has it, and no key is parsed to it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from luts.format.errors import UsageError, unknown
from search.blocks.shapes import Scoring
from search.blocks.spec import Macs, param

if TYPE_CHECKING:
    from torch import nn

WIDTHS: Mapping[str, tuple[str, float]] = {"mobilenetv1_075": ("mobilenetv1_100", 0.75)}
"""Widths of MobileNetV1 (Howard et al. 2017, table 6) that timm can generate but has no name for."""


def timm_side(name: str) -> int:
    """Side in pixels of the images that a network of timm is for; `UsageError` where there is no such network."""
    import timm  # brings torch

    known = (*timm.list_models(), *WIDTHS)
    if name not in known:
        raise UsageError(
            unknown("timm model", name, known, "all: python -c 'import timm; print(timm.list_models())'")
        )
    side: int = timm.get_pretrained_cfg(WIDTHS.get(name, (name, 1.0))[0]).input_size[-1]
    return side


def create_timm(name: str, side: int, classes: int | None = None) -> nn.Module:
    """A network of timm with random weights, for images of `side` pixels; its own number of classes by default.

    Raises:
        Exception: of many kinds, where it can't take these pixels.
    """
    import timm
    from timm.models import efficientnet

    head = {} if classes is None else {"num_classes": classes}
    module: nn.Module
    if name in WIDTHS:
        module = efficientnet._gen_mobilenet_v1(*WIDTHS[name], **head)
        return module
    if side != timm_side(name):
        with contextlib.suppress(TypeError):  # networks without tables of positions have no such argument
            module = timm.create_model(name, pretrained=False, img_size=side, **head)
            return module
    module = timm.create_model(name, pretrained=False, **head)
    return module


@dataclasses.dataclass(frozen=True)
class WholeNetwork(Scoring):
    """From images to scores.

    Attributes:
        network: timm's name for it.
    """

    kind: ClassVar[str] = "timm"

    classes: int = param("classes")
    network: str = ""

    @cached_property
    def key(self) -> str:
        """Not one that a LUT knows: `timm.NAME(classes=10)@224`."""
        return f"timm.{self.network}(classes={self.classes})@{self.resolution}"

    @property
    def in_channels(self) -> int:
        return 3

    def params(self) -> int:
        import torch  # counted by building it without storage

        with torch.device("meta"):
            network = create_timm(self.network, self.resolution, self.classes)
        return sum(parameter.numel() for parameter in network.parameters())

    def macs(self) -> Macs:
        raise self._uncounted("MACs")

    def traffic_elements(self) -> int:
        raise self._uncounted("activation traffic")

    def live_elements(self) -> int:
        raise self._uncounted("activations")

    def _uncounted(self, what: str) -> UsageError:
        return UsageError(
            f"timm:{self.network} has no {what} on paper; `bench measure` counts its MACs as it runs"
        )
