"""Kinds of work that a network's latency is attributed to: the one place that defines them.

Every operation has exactly one kind, so that parts add up. Everything in an attention or MLP module counts as
that: attention includes its projections, its softmax and its reshapes (EfficientViT, Liu et al. 2023, figure
2, calls it MHSA), MLP includes its activation. All other kinds are of operations outside of both. A
convolution that becomes a matrix product inside a delegate is still a convolution.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

Kind = Literal[
    "attention", "mlp", "convolution", "normalisation", "activation", "reshape", "elementwise", "other"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""`reshape` is every reshape and copy of data; `other` is what no paper's figure names: pooling, the
classifier.
"""

TITLES: dict[Kind, str] = {
    "attention": "attention, with its projections",
    "mlp": "MLP",
    "convolution": "convolution",
    "normalisation": "normalisation",
    "activation": "activation",
    "reshape": "reshape and copy",
    "elementwise": "element-wise",
    "other": "pooling, classifier",
}

Part = Literal[
    "projection", "product", "softmax", "normalisation", "activation", "reshape", "elementwise", "other"
]
PARTS: tuple[Part, ...] = get_args(Part)
"""What an operation does inside its kind: EfficientViT's figure 2 separates reshapes, normalisation and
element-wise operations of attention. `projection` is a convolution or linear layer, `product` one of two
activations.
"""

PART_TITLES: dict[Part, str] = {
    "projection": "linear and convolution",
    "product": "matrix products",
    "softmax": "softmax",
    "normalisation": "normalisation",
    "activation": "activation",
    "reshape": "reshape and copy",
    "elementwise": "element-wise",
    "other": "other",
}

Chain = Sequence[tuple[str, str]]
"""The modules around an operation, outermost first: each one's path and the name of its class."""

Family = Literal[
    "convolution", "linear", "product", "normalisation", "activation", "reshape", "elementwise", "other"
]
"""Kind of an operation by itself. `product` only occurs in attention: products of two activations, softmax."""

_FAMILIES: dict[Family, str] = {
    "convolution": "conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d "
    "conv depthwiseconv convtranspose",
    "linear": "linear addmm mm fullyconnected",
    "product": "bmm matmul baddbmm softmax _softmax scaled_dot_product_attention batchmatrixmultiply "
    "scaleddotproductattention",
    "normalisation": "batch_norm _native_batch_norm_legit_no_training layer_norm native_layer_norm group_norm "
    "native_group_norm instance_norm rms_norm",
    "activation": "relu relu6 silu gelu hardswish hardsigmoid hardtanh sigmoid tanh leaky_relu elu prelu mish "
    "softplus clamp leakyrelu",
    "reshape": "view reshape flatten unflatten permute transpose t numpy_t slice select narrow split "
    "split_with_sizes chunk unbind cat stack pad constant_pad_nd expand expand_as clone contiguous to _to copy "
    "alias squeeze unsqueeze roll repeat index index_select gather pixel_shuffle pixel_unshuffle "
    "channel_shuffle unfold full full_like getitem dropout detach "
    "statictranspose staticreshape staticslice staticconstantpad concatenate convert",
    "elementwise": "add sub subtract mul multiply div neg negate abs pow square sqrt squareroot rsqrt "
    "reciprocalsquareroot reciprocal exp log sin cos floor ceiling minimum maximum where eq ne lt gt logical_not "
    "logical_and logical_or any all",
}
_FAMILY_OF: dict[str, Family] = {
    name: family for family, names in _FAMILIES.items() for name in names.split()
}


def base_name(operation: str) -> str:
    """Return `permute` for `aten.permute_copy.default` or `native_call_permute_copy.out`; `add` for `XNNAdd`."""
    if operation.startswith("XNN"):
        return operation.removeprefix("XNN").lower().removesuffix("2d").rstrip("2345")
    name = operation.removeprefix("native_call_").removeprefix("aten.").partition(".")[0]
    return name.removesuffix("_copy") or name


def family_of(operation: str) -> Family:
    """Return the family of an operation of PyTorch or XNNPACK; `other` if it is not listed."""
    name = base_name(operation)
    return _FAMILY_OF.get(name) or _FAMILY_OF.get(name.rstrip("_"), "other")


_ATTENTION = re.compile(r"attention|attn|mhsa", re.IGNORECASE)
_MLP = re.compile(r"mlp|feedforward|ffn|swiglu", re.IGNORECASE)
_NORM = re.compile(r"norm", re.IGNORECASE)
_GATE = re.compile(r"squeeze|^se|eca|channelatt|spatialatt", re.IGNORECASE)
"""Gates over channels sometimes call themselves attention; they are convolutions and products like any other."""
_HEAD = re.compile(r"head|classifier|pool", re.IGNORECASE)
_NAMED: dict[str, Kind] = {
    "attn": "attention",
    "attention": "attention",
    "mlp": "mlp",
    "ffn": "mlp",
    "feed": "mlp",
}
_PLAIN = ("Sequential", "ModuleList", "Residual")

_WHOLE_LAYER = "TransformerLayer"
_PROJECTIONS: dict[str, Kind] = {"qkv": "attention", "proj": "attention", "fc1": "mlp", "fc2": "mlp"}
"""Our transformer layer has attention and MLP without a module for either; these are its linear layers."""


@dataclass(frozen=True)
class Place:
    """Kind of an operation, and the path of the attention or MLP that it belongs to; empty outside."""

    kind: Kind
    region: str = ""


def place_of(operation: str, chain: Chain, family: Family | None = None) -> Place:
    """Return the kind and region of an operation, from its name and the modules around it.

    Args:
        operation: Name in PyTorch, ExecuTorch or XNNPACK.
        chain: The modules around it, the network itself first.
        family: Its family if that is not the name's: the product in `x * sigmoid(x)` is an activation.
    """
    family = family or family_of(operation)
    inner = _region(chain[1:])
    if inner is not None:
        return inner
    for position, (path, class_name) in enumerate(chain):
        if class_name == _WHOLE_LAYER:
            place = _in_whole_layer(family, base_name(operation), path, chain[position + 1 :])
            if place is not None:
                return place
    if family == "activation":
        return Place("activation")
    return Place("normalisation" if _in_norm(chain) else cast(Kind, _OUTSIDE.get(family, family)))


def part_of(operation: str, chain: Chain, family: Family | None = None) -> Part:
    """Return what an operation does inside its kind; arguments as for `place_of`."""
    if _in_norm(chain):
        return "normalisation"
    if base_name(operation).strip("_") == "softmax":
        return "softmax"
    family = family or family_of(operation)
    return cast(Part, _PARTS.get(family, family))


def _in_norm(chain: Chain) -> bool:
    """Return whether the innermost module, other than the network, is a normalisation."""
    return any(_NORM.search(kind) and not _HEAD.search(kind) for _, kind in chain[1:][-1:])


_PARTS: dict[Family, Part] = {"convolution": "projection", "linear": "projection"}
_OUTSIDE: dict[Family, Kind] = {"linear": "other", "product": "attention"}
"""Parts inside of a kind, and kinds outside of attention and MLP, of families that are not named like them."""


def _region(chain: Chain) -> Place | None:
    """Return the innermost attention or MLP, widened to the outermost one of its kind directly around it."""
    place: Place | None = None
    for path, class_name in reversed(chain):
        kind = _module_kind(path.rpartition(".")[2], class_name)
        if kind is None:
            continue
        if place is not None and place.kind != kind:
            break
        place = Place(kind, path)
    return place


def _module_kind(name: str, class_name: str) -> Kind | None:
    if _GATE.search(class_name) or _HEAD.search(class_name):
        return None
    if _ATTENTION.search(class_name):
        return "attention"
    if _MLP.search(class_name):
        return "mlp"
    return _NAMED.get(name) if class_name in _PLAIN else None


def _in_whole_layer(family: Family, name: str, path: str, inside: Chain) -> Place | None:
    """Return the region inside our transformer layer; None for its norms and its residual additions."""
    if inside:
        kind = _PROJECTIONS.get(inside[0][0].rpartition(".")[2])
        return Place(kind, path) if kind else None
    if family == "activation":
        return Place("mlp", path)
    return None if name == "add" else Place("attention", path)
