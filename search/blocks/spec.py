"""What a block is: a frozen value whose key names everything that decides its cost; kinds of blocks by name.

A key reads `kind(name=value,...)@resolution`, for example `mbconv(in=16,out=24,k=3,e=1,s=2)@128`. The
resolution is the side of the square input map in pixels, so the same block at two places has two keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from typing_extensions import dataclass_transform

from luts.format.errors import UsageError, close_names
from luts.format.registry import Registry
from search.blocks.ops import Costs, OpList

Factors = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Parameter -> dimension -> the factors that it is a product of, the outermost first."""

MAX_KEY_CHARS = 200
"""Longest key that is parsed; the longest of any registered space has 61 characters."""

MAX_VALUE = 1 << 16
"""Largest number in a key: keeps products of a hostile key within machine integers."""

_KEY = re.compile(r"(?P<kind>[a-z][a-z0-9_.]*)\((?P<params>[^()]*)\)@(?P<resolution>[1-9][0-9]{0,4})")
_KIND = re.compile(r"[a-z][a-z0-9_.]*")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?")


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
        enclosed_by: Kind of the block that runs it, as a shell runs its transformer layers; "" for others, also
            for token mixers, which run alone too.
        elastic: Whether the first channels of a larger one make a smaller one, so that a supernet can hold
            it.
        resolution_bound: Whether its weights fit maps of one side only, as those of an MLP over tokens.
        branches: Submodules whose outputs are added to their inputs, if there are several residuals.
            Stochastic depth drops each of them separately; a branch `layers` drops with what it encloses.
        in_task_head: Whether it belongs to a head of detection or segmentation, and not to a backbone.
        complexity: Multiply-accumulates as a formula in tokens N and channels d; "" for blocks that mix no
            tokens.
        op_list: Class of the list of its operations.
        resolution: Side of the square input map in pixels.
    """

    kind: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    enclosed_by: ClassVar[str] = ""
    elastic: ClassVar[bool] = True
    resolution_bound: ClassVar[bool] = False
    branches: ClassVar[tuple[str, ...]] = ()
    in_task_head: ClassVar[bool] = False
    complexity: ClassVar[str] = ""
    op_list: ClassVar[type[OpList]] = OpList

    resolution: int

    @functools.cached_property
    def key(self) -> str:
        """Key of this block in a LUT."""
        params = (f"{name}={getattr(self, field.name):g}" for name, field in _key_fields(type(self)).items())
        return f"{self.kind}({','.join(params)})@{self.resolution}"

    @property
    def in_channels(self) -> int:
        """Channels of the input: by default the first parameter of the key."""
        channels: int = getattr(self, next(iter(_key_fields(type(self)).values())).name)
        return channels

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

    def ops(self) -> OpList:
        """Return the block's operations in order of execution at batch 1; all costs follow from them."""
        ops = self.op_list(self.input_shape)
        self.add_ops(ops)
        return ops

    def add_ops(self, ops: OpList) -> None:
        """Append the block's operations; a kind defines this or `ops`."""
        raise NotImplementedError

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

    def _require(self, possible: bool, problem: str) -> None:
        """Raise `UsageError` with the key and the problem if these parameters make no block."""
        if not possible:
            raise UsageError(f"{self.key}: {problem}", code="invalid_block_parameter")


@functools.lru_cache(maxsize=1 << 14)
def _costs_of(spec: BlockSpec) -> Costs:
    """Return the costs of a block; equal blocks of many architectures share them."""
    return spec.ops().costs


@functools.cache
def _key_fields(cls: type[BlockSpec]) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields that are parameters of a kind's keys, by their names in the key."""
    return {field.metadata["key"]: field for field in dataclasses.fields(cls) if "key" in field.metadata}


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


@dataclasses.dataclass(frozen=True)
class Projecting(BlockSpec):
    """A block from `inputs` channels to `outputs` channels."""

    inputs: int = param("in")
    outputs: int = param("out")


@dataclasses.dataclass(frozen=True)
class ChannelKeeping(BlockSpec):
    """A block whose output map has the `channels` of its input map."""

    channels: int = param("c")


@dataclasses.dataclass(frozen=True)
class DimKeeping(BlockSpec):
    """A block whose output tokens have the dimension `dim` of its input tokens."""

    dim: int = param("d")


@dataclasses.dataclass(frozen=True)
class Classifying(BlockSpec):
    """A block from `inputs` channels to scores of `classes`."""

    inputs: int = param("in")
    classes: int = param("classes")


KINDS: Registry[type[BlockSpec]] = Registry("block kind")

Spec = TypeVar("Spec", bound=type[BlockSpec])


@dataclass_transform(frozen_default=True)
def register(cls: Spec) -> Spec:
    """Register a kind of block, so that `parse_key` knows it, as a frozen dataclass (class decorator).

    Raises:
        UsageError: the name is invalid or taken, something is missing, or an example is not a key of the kind.
    """
    if "__dataclass_fields__" not in vars(cls):
        dataclasses.dataclass(frozen=True)(cls)
    kind = getattr(cls, "kind", "")
    if not _KIND.fullmatch(kind):
        raise _incomplete(f"block {cls.__name__} needs a `kind` of a-z, 0-9, dots and _, not {kind!r}")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if cls.ops is BlockSpec.ops and cls.add_ops is BlockSpec.add_ops:
        missing.append("ops")
    if missing:
        raise _incomplete(f"block kind {kind!r} does not define {', '.join(missing)}")
    if not getattr(cls, "examples", ()):
        raise _incomplete(f"block kind {kind!r} has no `examples`; add keys of small blocks")
    KINDS.add(kind, cls)
    try:
        for example in cls.examples:
            if type(parse_key(example)) is not cls:
                raise UsageError(f"{example!r} is a key of another kind", code="wrong_block_example")
    except UsageError as error:
        del KINDS.items[kind]
        raise UsageError(
            f"block kind {kind!r}: wrong example; {error}", code="wrong_block_example"
        ) from error
    return cls


def _incomplete(message: str) -> UsageError:
    return UsageError(message, code="incomplete_block_kind")


def kinds() -> dict[str, type[BlockSpec]]:
    """Return every registered kind by name."""
    return dict(KINDS.items)


def parse_key(key: str) -> BlockSpec:
    """Return the block of a key; `parse_key(spec.key) == spec`.

    Raises:
        UsageError: the text is not a key, its kind is unknown, or a parameter is missing, extra or malformed.
    """
    match = _KEY.fullmatch(key) if len(key) <= MAX_KEY_CHARS else None
    if match is None:
        raise _invalid(f"{key[:80]!r} is not a block key; keys read kind(name=value,...)@resolution")
    cls = KINDS.items.get(match["kind"])
    if cls is None:
        raise _unknown_kind(match["kind"])
    fields = _key_fields(cls)
    values: dict[str, int | float] = {}
    for part in match["params"].split(","):
        name, _, text = part.partition("=")
        field = fields.get(name)
        number = float(text) if _NUMBER.fullmatch(text) else None
        if field is None or field.name in values or number is None or not 0 < number <= MAX_VALUE:
            raise _invalid(
                f"{part!r} is not a parameter of {match['kind']} in {key!r}; it takes {', '.join(fields)}"
            )
        whole = field.type in ("int", int)
        if whole and number != int(number):
            raise _invalid(f"{name} must be a whole number in {key!r}")
        values[field.name] = int(number) if whole else number
    missing = [name for name, field in fields.items() if field.name not in values]
    if missing:
        raise _invalid(f"{key!r} lacks {', '.join(missing)}")
    spec = cls(resolution=int(match["resolution"]), **values)
    if spec.key != key:
        raise _invalid(f"{key!r} is not in canonical form; write {spec.key!r}")
    return spec


def _invalid(message: str) -> UsageError:
    return UsageError(message, code="invalid_block_key")


def _unknown_kind(kind: str) -> UsageError:
    near = close_names(kind, KINDS.items, 3, 0.4)
    families = sorted({name.partition(".")[0] for name in KINDS.items})
    hint = f"did you mean {' or '.join(near)}?" if near else f"known families: {', '.join(families)}"
    return UsageError(f"unknown block kind {kind[:40]!r}; {hint}", code="unknown_block_kind")


def parse_keys(keys: Iterable[str]) -> tuple[BlockSpec, ...]:
    """Return the blocks of a sequence of keys."""
    return tuple(parse_key(key) for key in keys)


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Round a width to a multiple of `divisor`, never more than 10 % down (as timm and MobileNet do)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded


def conv_out(resolution: int, stride: int) -> int:
    """Return the side of the map after a convolution of odd kernel with padding k // 2."""
    return (resolution - 1) // stride + 1
