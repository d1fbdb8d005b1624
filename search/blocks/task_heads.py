"""Blocks of detection and segmentation heads: SSDLite, and DeepLabv3 with its whole or a lite head.

SSDLite (Sandler et al. 2018, MobileNetV2, section 6.2) is SSD with separable predictors and extra maps. One
`ssd.predict` reads each predicted map; an `ssd.extra` halves the last map, so that larger boxes have a map
too. Layers are those of torchvision's SSDLite320 (Howard et al. 2019, MobileNetV3, section 6.3): ReLU6, six
boxes a place.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from search.blocks.ops import Activation, OpList
from search.blocks.spec import Projecting, SideSpec, param, register

COORDINATES = 4
"""Offsets of a box: centre x and y, width, height."""

ASPECT_RATIOS = (2.0, 3.0)
"""Aspect ratios of default boxes, in addition to squares of two sizes (Liu et al. 2016, SSD, section 2.2)."""

BOXES = 2 + 2 * len(ASPECT_RATIOS)
"""Default boxes at each place of a map: two squares, and a wide and a tall box of each aspect ratio."""

EXTRA_WIDTHS = (512, 256, 256, 128)
"""Channels of the extra maps, the largest map first (SSDLite320 and MobileViT)."""

FINEST_SIDE = 4
"""Smallest side in pixels of the largest map that SSDLite predicts on: 4 x 4 places are few for any objects."""

DEEPLAB_WIDTH = 256
"""Channels of every DeepLabv3 branch (Chen et al. 2017, section 3.3)."""

DEEPLAB_RATE = 12
"""Dilation of the first atrous branch; the others have two and three times as much (torchvision, MobileViT)."""

DEEPLAB_LEAST_SIDE = 4
"""Smallest side in pixels of a map for segmentation: fewer than 4 x 4 places cannot locate anything."""


@register
class SsdPredict(SideSpec):
    """For each default box logits of the background and of `classes`, then four offsets.

    Logits and offsets have a predictor each: depthwise 3x3 with BN and ReLU6, 1x1 with bias.
    """

    kind = "ssd.predict"
    examples = ("ssd.predict(in=8,boxes=6,classes=3)@5", "ssd.predict(in=16,boxes=6,classes=10)@4")
    elastic = False
    in_task_head = True

    inputs: int = param("in")
    boxes: int = param("boxes")
    classes: int = param("classes")

    @override
    def add_ops(self, ops: OpList) -> None:
        logits = self._predict(ops, self.classes + 1)
        offsets = self._predict(ops, COORDINATES)
        ops.concat(logits, offsets, axis=2)

    def _predict(self, ops: OpList, values: int) -> Activation:
        """Append a predictor of so many values a box, and their change of layout to (1, places, values)."""
        y = ops.conv(ops.depthwise(ops.input, 3), self.boxes * values, bias=True, norm=False)
        return ops.copy(y, 1, self.boxes * self.resolution**2, values)


@register
class SsdExtra(Projecting):
    """1x1 to half of `outputs`, depthwise 3x3 of stride 2, 1x1; each with BN and ReLU6."""

    kind = "ssd.extra"
    examples = ("ssd.extra(in=8,out=16)@5", "ssd.extra(in=16,out=32)@8")
    elastic = False
    in_task_head = True

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return self.outputs // 2

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.conv(ops.depthwise(ops.conv(ops.input, self.middle), 3, 2), self.outputs)


@register
class DeepLabLite(Projecting):
    """DeepLabv3 without its atrous branches (Sandler et al. 2018, section 6.3).

    1x1 convolution and image pooling, joined by a 1x1 convolution, classifier: logits of the background and of
    `classes` at every place of the map. Convolutions but the last have BN and ReLU. The joining convolution of
    both branches is written as two.
    """

    kind = "deeplab.lite"
    examples: ClassVar[tuple[str, ...]] = (
        "deeplab.lite(in=8,classes=3,mid=16)@5",
        "deeplab.lite(in=16,classes=10,mid=32)@4",
    )
    elastic = False
    in_task_head = True

    outputs: int = param("classes")
    middle: int = param("mid")

    @property
    def rates(self) -> tuple[int, ...]:
        """Dilations of the atrous convolutions."""
        return ()

    @override
    def add_ops(self, ops: OpList) -> None:
        width = self.middle
        pooled = self._pool_image(ops)
        branches = [ops.conv(ops.input, width)]
        branches += [ops.conv(ops.input, width, 3, dilation=rate) for rate in self.rates]
        y = ops.conv(ops.concat(*branches) if self.rates else branches[0], width, norm=False)
        y = ops.in_place(ops.add(y, pooled, traffic=2 * y.elements), params=2 * width)
        y = ops.conv(y, width, 3) if self.rates else y
        ops.conv(y, self.outputs + 1, bias=True, norm=False)

    def _pool_image(self, ops: OpList) -> Activation:
        """Append image pooling and its two 1x1 convolutions: (1, middle)."""
        pooled = ops.linear(ops.mean(ops.input), self.middle, bias=False)
        return ops.linear(ops.in_place(pooled, params=2 * self.middle), self.middle, bias=False)


@register
class DeepLab(DeepLabLite):
    """DeepLabv3's head (Chen et al. 2017) as in torchvision: atrous spatial pyramid pooling, 3x3, classifier.

    1x1, three atrous 3x3 and image pooling are joined by a 1x1 convolution. `rate` is the dilation of the
    first atrous convolution; the others have two and three times as much.
    """

    kind = "deeplab.aspp"
    examples = (
        "deeplab.aspp(in=8,classes=3,mid=16,rate=1)@5",
        "deeplab.aspp(in=16,classes=10,mid=32,rate=2)@7",
    )

    rate: int = param("rate")

    @property
    @override
    def rates(self) -> tuple[int, ...]:
        return (self.rate, 2 * self.rate, 3 * self.rate)
