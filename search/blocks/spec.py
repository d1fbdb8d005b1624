"""What a block is: a frozen value whose key names everything that decides its cost.

A key reads `kind(name=value,...)@resolution`, for example `mbconv(in=16,out=24,k=3,e=1,s=2)@128`: the
resolution is the side of the square input map in pixels, so the same block at two places has two keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

Factors = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Parameter -> dimension -> the factors that it is a product of, the outermost first."""


@dataclasses.dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one forward pass at batch 1.

    `conv_linear` is what the papers call FLOPs; `total` adds the two matrix products of attention.
    """

    conv_linear: int
    total: int

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.conv_linear + other.conv_linear, self.total + other.total)


def param(key_name: str) -> Any:
    """Declare a dataclass field that stands in the key as `key_name`."""
    return dataclasses.field(metadata={"key": key_name})


@dataclasses.dataclass(frozen=True)
class BlockSpec(ABC):
    """One building block at one input resolution.

    Attributes:
        kind: First word of its key.
        examples: Keys of small blocks by which every kind is checked; of an elastic one, parts of the last.
        enclosed_by: Kind of the block that it stands inside of, as a transformer layer in its shell; "" on its own.
        elastic: Whether the first channels of a larger one make a smaller one, so that a supernet can hold it.
        branches: Parts of its module whose outputs are added to what goes in, one residual after another, by name;
            none where there is one residual or none. Stochastic depth leaves each out on its own.
        of_task: Whether it stands in a head of detection or segmentation, and not in a backbone.
        complexity: Multiply-accumulates in tokens N and channels d; "" where a block mixes no tokens.
        resolution: Side of the square input map in pixels.
    """

    kind: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    enclosed_by: ClassVar[str] = ""
    elastic: ClassVar[bool] = True
    branches: ClassVar[tuple[str, ...]] = ()
    of_task: ClassVar[bool] = False
    complexity: ClassVar[str] = ""

    resolution: int

    @functools.cached_property
    def key(self) -> str:
        """The string under which a LUT knows this block."""
        params = ",".join(
            f"{field.metadata['key']}={getattr(self, field.name):g}"
            for field in dataclasses.fields(self)
            if "key" in field.metadata
        )
        return f"{self.kind}({params})@{self.resolution}"

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of the input map."""

    @property
    @abstractmethod
    def out_channels(self) -> int:
        """Channels of the output map (classes for a head)."""

    @property
    def out_resolution(self) -> int:
        """Side of the output map in pixels."""
        return self.resolution

    @property
    def removable(self) -> bool:
        """Whether a network stays valid when this block alone is left out."""
        return False

    @abstractmethod
    def params(self) -> int:
        """Trainable parameters, BN's scale and shift included."""

    @abstractmethod
    def macs(self) -> Macs:
        """Multiply-accumulates at batch 1."""

    def depthwise_macs(self) -> int:
        """Those of `macs` that depthwise convolutions take: kernels of their own, slower than their MACs say."""
        return 0

    @abstractmethod
    def traffic_elements(self) -> int:
        """Activation elements that its operations read and write (weights left out)."""

    @abstractmethod
    def live_elements(self) -> int:
        """Most activation elements that are live at once while the block runs at batch 1.

        Its input and its output count, every tensor from the operation that makes it to the last that reads it;
        BN and activations work in place, weights and scratch memory of kernels are left out.
        """

    def factors(self) -> Factors:
        """Of a parameter with a dimension that is a product, what is cut factor by factor in a smaller block.

        The first h of H heads of d channels are not the first channels of a query, key and value end to end:
        `qkv.weight` has (3, H, d) in dimension 0. Left out, a dimension keeps its first channels, a kernel its
        centre.
        """
        return {}

    def covering(self, other: Self) -> Self:
        """What holds the weights of both blocks in a supernet: every field's larger value.

        It need not be a block of any network.
        """
        names = [field.name for field in dataclasses.fields(self)]
        return dataclasses.replace(
            self, **{name: max(getattr(self, name), getattr(other, name)) for name in names}
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the module's input at batch 1."""
        return (1, self.in_channels, self.resolution, self.resolution)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the module's output at batch 1."""
        return (1, self.out_channels, self.out_resolution, self.out_resolution)

    @property
    def out_elements(self) -> int:
        """Elements of the output."""
        return math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class EnclosingSpec(BlockSpec):
    """A block that runs others inside of it, as a MobileViT shell its transformer layers."""

    @abstractmethod
    def encloses(self, other: BlockSpec) -> bool:
        """Whether `other` fits inside."""

    @abstractmethod
    def held_elements(self) -> int:
        """Activation elements that stay live while the enclosed blocks run."""


@dataclasses.dataclass(frozen=True)
class SideSpec(BlockSpec):
    """A block that reads a map and gives an output of the network's own; the map goes on to the next block.

    `output_shape` is that of the output at its side, (1, places, values).
    """

    @abstractmethod
    def passing_elements(self) -> int:
        """`live_elements` where the map stays live for the blocks after it."""


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Round a width to a multiple of `divisor`, never more than 10 % down (as timm and MobileNet do)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded


def conv_out(resolution: int, stride: int) -> int:
    """Side of the map after a convolution of odd kernel with padding k // 2."""
    return (resolution - 1) // stride + 1
