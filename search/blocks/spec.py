"""What a block is: a frozen value whose key names everything that decides its cost.

A key reads `kind(name=value,...)@resolution`, for example `mbconv(in=16,out=24,k=3,e=1,s=2)@128`: the
resolution is the side of the square input map in pixels, so the same block at two places has two keys.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from luts.errors import UsageError

MAX_KEY_CHARS = 200
"""Longest key that is parsed; the longest of any registered space has 61 characters."""

MAX_VALUE = 1 << 16
"""Largest number in a key: keeps products of a hostile key within machine integers."""

_KEY = re.compile(r"(?P<kind>[a-z][a-z0-9_.]*)\((?P<params>[^()]*)\)@(?P<resolution>[1-9][0-9]{0,4})")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?")
_REGISTRY: dict[str, type[BlockSpec]] = {}


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
    """One building block at one input resolution."""

    kind: ClassVar[str]

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

    @abstractmethod
    def traffic_elements(self) -> int:
        """Activation elements that its operations read and write (weights left out)."""

    @abstractmethod
    def live_elements(self) -> int:
        """Most activation elements that are live at once while the block runs at batch 1.

        Its input and its output count, every tensor from the operation that makes it to the last that reads it;
        BN and activations work in place, weights and scratch memory of kernels are left out.
        """

    @property
    def out_elements(self) -> int:
        """Elements of the output map."""
        return self.out_channels * self.out_resolution**2


Spec = TypeVar("Spec", bound=type[BlockSpec])


def register(cls: Spec) -> Spec:
    """Class decorator: make a kind known to `parse_key`."""
    if cls.kind in _REGISTRY:
        raise ValueError(f"block kind {cls.kind!r} is registered twice")
    _REGISTRY[cls.kind] = cls
    return cls


def parse_key(key: str) -> BlockSpec:
    """Turn a key back into its block; `parse_key(spec.key) == spec`.

    Raises:
        UsageError: the text is no key, its kind is unknown, or a parameter is missing, extra or malformed.
    """
    match = _KEY.fullmatch(key) if len(key) <= MAX_KEY_CHARS else None
    if match is None:
        raise UsageError(f"{key[:80]!r} is no block key; keys read kind(name=value,...)@resolution")
    cls = _REGISTRY.get(match["kind"])
    if cls is None:
        raise UsageError(
            f"unknown block kind {match['kind']!r} in {key!r}; known: {', '.join(sorted(_REGISTRY))}"
        )
    fields = {field.metadata["key"]: field for field in dataclasses.fields(cls) if "key" in field.metadata}
    values: dict[str, int | float] = {}
    for part in match["params"].split(","):
        name, _, text = part.partition("=")
        field = fields.get(name)
        number = float(text) if _NUMBER.fullmatch(text) else None
        if field is None or field.name in values or number is None or not 0 < number <= MAX_VALUE:
            raise UsageError(
                f"{part!r} is no parameter of {match['kind']} in {key!r}; it takes {', '.join(fields)}"
            )
        if field.type == "int" and number != int(number):
            raise UsageError(f"{name} must be a whole number in {key!r}")
        values[field.name] = int(number) if field.type == "int" else number
    missing = [name for name, field in fields.items() if field.name not in values]
    if missing:
        raise UsageError(f"{key!r} lacks {', '.join(missing)}")
    spec = cls(resolution=int(match["resolution"]), **values)
    if spec.key != key:
        raise UsageError(f"{key!r} is not in canonical form; write {spec.key!r}")
    return spec


def parse_keys(keys: Iterable[str]) -> tuple[BlockSpec, ...]:
    """`parse_key` for a sequence."""
    return tuple(parse_key(key) for key in keys)


def make_divisible(value: float, divisor: int = 8, round_limit: float = 0.9) -> int:
    """Round a width to a multiple of `divisor`, never more than 10 % down (as timm and MobileNet do)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded


def conv_out(resolution: int, stride: int) -> int:
    """Side of the map after a convolution of odd kernel with padding k // 2."""
    return (resolution - 1) // stride + 1
