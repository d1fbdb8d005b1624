"""What a block is: a frozen value whose key names everything that decides its cost.

A key reads `kind(name=value,...)@resolution`, for example `mbconv(in=16,out=24,k=3,e=1,s=2)@128`. The
resolution is the side of the square input map in pixels, so the same block at two places has two keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from typing_extensions import override

from search.blocks.ops import Costs, OpList

Factors = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Parameter -> dimension -> the factors that it is a product of, the outermost first."""


@dataclasses.dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one forward pass at batch 1.

    Attributes:
        conv_linear: Those of convolutions and linear layers: what the papers call FLOPs.
        total: These and the matrix products of attention.
    """

    conv_linear: int
    total: int

    def __add__(self, other: Macs) -> Macs:
        """Return the sum."""
        return Macs(self.conv_linear + other.conv_linear, self.total + other.total)


def param(key_name: str) -> Any:
    """Declare a dataclass field that is called `key_name` in the key."""
    return dataclasses.field(metadata={"key": key_name})


@dataclasses.dataclass(frozen=True)
class BlockSpec(ABC):
    """One building block at one input resolution.

    Attributes:
        kind: First word of its key.
        examples: Keys of small blocks of this kind, which the tests check. Those of an elastic kind are
            subnets of the last one.
        enclosed_by: Kind of the block that runs it, as a shell runs its transformer layers; "" for others.
        elastic: Whether the first channels of a larger one make a smaller one, so that a supernet can hold
            it.
        branches: Submodules whose outputs are added to their inputs, if there are several residuals.
            Stochastic depth drops each of them separately.
        in_task_head: Whether it belongs to a head of detection or segmentation, and not to a backbone.
        complexity: Multiply-accumulates as a formula in tokens N and channels d; "" for blocks that mix no
            tokens.
        resolution: Side of the square input map in pixels.
    """

    kind: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    enclosed_by: ClassVar[str] = ""
    elastic: ClassVar[bool] = True
    branches: ClassVar[tuple[str, ...]] = ()
    in_task_head: ClassVar[bool] = False
    complexity: ClassVar[str] = ""

    resolution: int

    @functools.cached_property
    def key(self) -> str:
        """Key of this block in a LUT."""
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
    def out_channels(self) -> int:
        """Channels of the output map or tokens, or number of scores."""
        shape = self.output_shape
        return shape[2] if len(shape) == 3 else shape[1]

    @property
    def out_resolution(self) -> int:
        """Side of the output map in pixels; 1 for scores, the side of the input map for tokens."""
        shape = self.output_shape
        if len(shape) == 4:
            return shape[2]
        return 1 if len(shape) == 2 else self.resolution

    @property
    def removable(self) -> bool:
        """Whether a network stays valid if this block alone is left out."""
        return False

    @abstractmethod
    def ops(self) -> OpList:
        """Return the block's operations in order of execution at batch 1; all costs follow from them."""

    @functools.cached_property
    def costs(self) -> Costs:
        """Parameters, multiply-accumulates, traffic, peak memory and output shape, from `ops`."""
        return _costs_of(self)

    def params(self) -> int:
        """Return the number of trained parameters, BN's scale and shift included."""
        return self.costs.params

    def macs(self) -> Macs:
        """Return the multiply-accumulates at batch 1."""
        return Macs(self.costs.conv_linear_macs, self.costs.total_macs)

    def depthwise_macs(self) -> int:
        """Return the multiply-accumulates of depthwise convolutions, which are slower than others."""
        return self.costs.depthwise_macs

    def traffic_elements(self) -> int:
        """Return the activation elements that the operations read and write, weights left out."""
        return self.costs.traffic_elements

    def live_elements(self) -> int:
        """Return the most activation elements in memory at once at batch 1, input and output included."""
        return self.costs.live_elements

    def factors(self) -> Factors:
        """Return the dimensions of parameters that are products, which a smaller block cuts factor by factor.

        The first h of H heads of d channels are not the first channels of query, key and value end to end:
        `qkv.weight` has (3, H, d) in dimension 0. A dimension that is left out keeps its first channels, a
        kernel its centre.
        """
        return {}

    def covering(self, other: Self) -> Self:
        """Return the block that holds the weights of both in a supernet: every field's larger value.

        It need not be a block of any network.
        """
        names = [field.name for field in dataclasses.fields(self)]
        return dataclasses.replace(
            self, **{name: max(getattr(self, name), getattr(other, name)) for name in names}
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input at batch 1."""
        return (1, self.in_channels, self.resolution, self.resolution)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the module's output at batch 1."""
        return self.costs.output_shape

    @property
    def out_elements(self) -> int:
        """Elements of the output."""
        return math.prod(self.output_shape)


@functools.lru_cache(maxsize=1 << 14)
def _costs_of(spec: BlockSpec) -> Costs:
    """Return the costs of a block; equal blocks of many architectures share them."""
    return spec.ops().costs


@dataclasses.dataclass(frozen=True)
class EnclosingSpec(BlockSpec):
    """A block that runs other blocks inside of it, as a MobileViT shell its transformer layers."""

    @abstractmethod
    def encloses(self, other: BlockSpec) -> bool:
        """Whether `other` fits inside."""

    @abstractmethod
    def surrounding_elements(self) -> int:
        """Return the activation elements that stay in memory while the enclosed blocks run."""


@dataclasses.dataclass(frozen=True)
class SideSpec(BlockSpec):
    """A block that reads a map and gives one of the network's outputs; the next block reads the same map.

    `output_shape` is that of its output, (1, places, values).
    """

    def live_elements_with_input(self) -> int:
        """Return `live_elements` if the map stays in memory for the blocks after this one."""
        return self.ops().live_elements(keep_input=True)


@dataclasses.dataclass(frozen=True)
class Projecting(BlockSpec):
    """A block from `inputs` channels to `outputs` channels."""

    inputs: int = param("in")
    outputs: int = param("out")

    @property
    @override
    def in_channels(self) -> int:
        return self.inputs


@dataclasses.dataclass(frozen=True)
class ChannelKeeping(BlockSpec):
    """A block whose output map has the `channels` of its input map."""

    channels: int = param("c")

    @property
    @override
    def in_channels(self) -> int:
        return self.channels


@dataclasses.dataclass(frozen=True)
class DimKeeping(BlockSpec):
    """A block whose output tokens have the dimension `dim` of its input tokens."""

    dim: int = param("d")

    @property
    @override
    def in_channels(self) -> int:
        return self.dim


@dataclasses.dataclass(frozen=True)
class Classifying(BlockSpec):
    """A block from `inputs` channels to scores of `classes`."""

    inputs: int = param("in")
    classes: int = param("classes")

    @property
    @override
    def in_channels(self) -> int:
        return self.inputs


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Round a width to a multiple of `divisor`, never more than 10 % down (as timm and MobileNet do)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded


def conv_out(resolution: int, stride: int) -> int:
    """Return the side of the map after a convolution of odd kernel with padding k // 2."""
    return (resolution - 1) // stride + 1
