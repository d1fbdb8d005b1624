"""Operators of an exported network: a frozen value whose key names everything that decides its cost.

A key reads `kind(size=value,...)` with whole numbers, such as `gemm(m=196,k=64,n=128)`. A type of elements
other than fp32 follows the kind: `gemm.int8(m=196,k=64,n=128)`. Sizes of 1 that a kind may omit are omitted,
so that one operator has one key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError, unknown
from luts.format.schema import KeyFeatures

OPERATORS = "operators"
"""`space` of a LUT whose blocks are operators of any network."""

MAX_KEY_CHARS, MAX_SIZE = 160, 2**31
"""Longest key, as of every key in a LUT, and largest size."""

ELEMENT_BYTES: Mapping[str, float] = {
    "fp32": 4, "fp16": 2, "bf16": 2, "int4": 0.5, "int8": 1, "uint8": 1, "bool": 1, "int16": 2, "int32": 4,
    "int64": 8, "fp64": 8,
}  # fmt: skip
"""Bytes of an element by its type."""


class OperatorKind(NamedTuple):
    """Sizes of a kind, and its costs as sums of products of sizes (`m k + m n`).

    Attributes:
        sizes: Names of the sizes that every key of the kind has, in order.
        omitted: Names of those that follow where they are not 1.
        moved: Elements of activations read and written.
        macs: Multiply-accumulates.
        params: Weights, without biases.
    """

    sizes: str
    omitted: str
    moved: str
    macs: str = ""
    params: str = ""


_WINDOW = "b kh kw sh sw dh dw"
_DEPTHWISE = OperatorKind("h w c", _WINDOW, "b h w c sh sw + b h w c", "b h w c kh kw", "c kh kw")
_POOL = OperatorKind("h w c", _WINDOW, "b h w c sh sw + b h w c")
_MAPPED = OperatorKind("n", "", "n + n")
_COPIED = OperatorKind("n run", "", "n + n")
_PORTABLE = OperatorKind("in out", "stride indices taps run", "in + out")
PRODUCTS = frozenset(
    {"portable.addmm", "portable.baddbmm", "portable.bmm", "portable.convolution", "portable.mm"}
)
"""Operators outside the delegates that multiply; `taps` are the products of an output."""
_UNARY = (
    "abs ceiling clamp convert cos elu exp floor gelu hardswish leakyrelu log negate other reciprocalsquareroot "
    "reshape sigmoid sin square squareroot tanh"
)
_BINARY = ("add", "div", "maximum", "minimum", "multiply", "subtract")

KINDS: Mapping[str, OperatorKind] = {
    "gemm": OperatorKind("m k n", "", "m k + m n", "m k n", "k n"),
    "gemm_dynamic": OperatorKind("m k n", "", "m k + k n + m n", "m k n"),
    "bmm": OperatorKind("m k n", "b", "b m k + b k n + b m n", "b m k n"),
    "conv": OperatorKind(
        "h w in out", _WINDOW, "b h w in sh sw + b h w out", "b h w in out kh kw", "in out kh kw"
    ),
    "grouped": OperatorKind(
        "h w in out groups", _WINDOW, "b h w in groups sh sw + b h w out groups",
        "b h w in out groups kh kw", "in out groups kh kw",
    ),
    "depthwise": _DEPTHWISE,
    "depthwise_large": _DEPTHWISE,
    "conv_transpose": OperatorKind(
        "h w in out", "groups " + _WINDOW, "b h w in groups + b h w out groups sh sw",
        "b h w in out groups kh kw", "in out groups kh kw",
    ),
    "softmax": OperatorKind("m n", "", "m n + m n"),
    **dict.fromkeys(("avgpooling", "maxpooling", "argmaxpooling"), _POOL),
    "globalavgpooling": OperatorKind("m c", "", "m c + c"),
    "resizebilinear": OperatorKind("h w c pixels", "b", "b c pixels + b h w c"),
    **dict.fromkeys(_UNARY.split(), _MAPPED),
    **dict.fromkeys(_BINARY, OperatorKind("n", "", "n + n + n")),
    **{f"{name}_broadcast": OperatorKind("n other run", "", "n + other + n") for name in _BINARY},
    "prelu": OperatorKind("n run", "", "n + n", "", "run"),
    "transpose": OperatorKind("n run rows cols", "", "n + n"),
    **dict.fromkeys(("copy", "slice", "constantpad"), _COPIED),
    "border": OperatorKind("n tensors", "", "n"),
}  # fmt: skip
"""Kinds inside a delegate of XNNPACK, and `border`, the call of a delegate (docs/operators.md)."""

_PORTABLE_NAME = re.compile(r"portable\.[a-z_][a-z0-9_]{0,45}")
_KEY = re.compile(r"([a-z0-9_.]+)\(((?:[a-z]+=(?:0|[1-9][0-9]{0,9})(?:,(?!\))|(?=\))))+)\)")


@dataclass(frozen=True)
class Operator:
    """One operator by its kind, its sizes in the order of the kind, and the type of its elements.

    `portable.NAME` are outside the delegates. `depthwise` has up to 25 taps, `depthwise_large` more. Sizes of
    convolutions and pools are of the output map, those of transposed convolutions of the input.
    """

    kind: str
    sizes: tuple[tuple[str, int], ...]
    dtype: str = "fp32"

    @classmethod
    def build(cls, kind: str, sizes: Mapping[str, int], dtype: str = "fp32") -> Operator:
        """Return an operator from sizes in any order, without those that its kind does not have or omits."""
        own = _lookup(kind)
        names = [*own.sizes.split(), *(name for name in own.omitted.split() if sizes.get(name, 1) != 1)]
        return cls(kind, tuple((name, sizes[name]) for name in names if name in sizes), dtype)

    def __post_init__(self) -> None:
        """Raise InvalidArtifactError for an unknown kind or type, other sizes, or costs no LUT can hold."""
        kind, names = _lookup(self.kind), [name for name, _ in self.sizes]
        omitted = [name for name in kind.omitted.split() if name in names]
        if names != kind.sizes.split() + omitted:
            raise _invalid(f"{self.kind} has sizes {' '.join(names)}; it takes {kind.sizes} {kind.omitted}")
        if self.dtype not in ELEMENT_BYTES:
            raise _invalid(unknown("type of elements", self.dtype, ELEMENT_BYTES))
        if any(not (2 if name in omitted else 0) <= size <= MAX_SIZE for name, size in self.sizes):
            raise _invalid(f"{self.key[:80]} has a size above {MAX_SIZE}, or one below 2 that is omitted")
        try:
            too_large = len(self.key) > MAX_KEY_CHARS or not self.features
        except ValidationError:
            too_large = True
        if too_large:
            raise _invalid(f"{self.key[:80]} is too large for a LUT")

    @property
    def key(self) -> str:
        """Key in a LUT; `parse_operator` is the inverse."""
        return f"{self._typed}({','.join(f'{name}={size}' for name, size in self.sizes)})"

    @property
    def features(self) -> KeyFeatures:
        """Costs for the joint fit, from the key alone; each type of elements is a kind of its own.

        `traffic_bytes` are activations read once and written, without padding; `params` are without biases.
        """
        kind, sizes = _lookup(self.kind), dict(self.sizes)
        macs, params, moved = (
            sum(
                math.prod(sizes.get(name, 1) for name in product.split())
                for product in total.split(" + ")
                if product
            )
            for total in (kind.macs, kind.params, kind.moved)
        )
        return KeyFeatures(
            kind=self._typed,
            macs=macs,
            traffic_bytes=math.ceil(moved * ELEMENT_BYTES[self.dtype]),
            params=params,
            depthwise_macs=macs if kind is _DEPTHWISE else 0,
        )

    @property
    def all_sizes(self) -> dict[str, int]:
        """Every size of the kind in order, omitted ones as 1."""
        kind, own = _lookup(self.kind), dict(self.sizes)
        return {name: own.get(name, 1) for name in f"{kind.sizes} {kind.omitted}".split()}

    @property
    def _typed(self) -> str:
        return self.kind if self.dtype == "fp32" else f"{self.kind}.{self.dtype}"


def parse_operator(key: str) -> Operator:
    """Return the operator of a key; `parse_operator(operator.key) == operator`.

    Raises:
        InvalidArtifactError: the text is not a key, or not in the form that `Operator.key` has.
    """
    match = _KEY.fullmatch(key) if len(key) <= MAX_KEY_CHARS else None
    if match is None:
        raise _invalid(f"{key[:80]!r} is not a key of an operator; keys read kind(size=value,...)")
    kind, _, dtype = match[1].rpartition(".")
    if dtype not in ELEMENT_BYTES or dtype == "fp32":
        kind, dtype = match[1], "fp32"
    pairs = (part.split("=") for part in match[2].split(","))
    return Operator(kind, tuple((name, int(size)) for name, size in pairs), dtype)


def _lookup(kind: str) -> OperatorKind:
    if _PORTABLE_NAME.fullmatch(kind) and kind.partition(".")[2] not in ELEMENT_BYTES:
        return _PORTABLE._replace(macs="out taps") if kind in PRODUCTS else _PORTABLE
    if kind not in KINDS:
        raise _invalid(unknown("kind of operator", kind, KINDS, "or portable.NAME"))
    return KINDS[kind]


def _invalid(message: str) -> InvalidArtifactError:
    return InvalidArtifactError(message, code="invalid_operator_key")
