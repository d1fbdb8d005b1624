"""A device that is not the CPU and refuses its tensors, as a GPU does, for tests without one.

Its tensors hold real numbers and say that they lie on `meta`. An operation on them and on the CPU's alike raises as
CUDA's does; numbers without a dimension may be read off and mixed, as there.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")


class There(torch.Tensor):
    """A tensor of the second device; `here` is what it holds."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here):
        return torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), dtype=here.dtype, device=DEVICE, requires_grad=False
        )

    def __init__(self, here):
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), named=None):  # type: ignore[override]
        return _run(operation, arguments, named or {})


class SecondDevice(TorchDispatchMode):
    """While it is entered there is such a device; `ran` counts the operations that ran on it."""

    def __init__(self):
        super().__init__()
        self.ran = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        named = named or {}
        tensors = [t for t in tree_flatten((arguments, named))[0] if isinstance(t, torch.Tensor)]
        if any(isinstance(t, There) for t in tensors):
            self.ran += 1
            return _run(operation, arguments, named)
        if torch.device(named.get("device") or "cpu") == DEVICE:
            return _wrapped(operation(*arguments, **named | {"device": torch.device("cpu")}))
        return operation(*arguments, **named)


COPIES = ("aten::_to_copy", "aten::copy_")


def _run(operation, arguments, named):
    name = operation._schema.name
    tensors = [t for t in tree_flatten((arguments, named))[0] if isinstance(t, torch.Tensor)]
    foreign = [t for t in tensors if not isinstance(t, There) and t.ndim > 0]
    if foreign and name not in COPIES:
        raise RuntimeError(f"Expected all tensors to be on the same device, in {name}")
    device = torch.device(named.get("device") or DEVICE)
    if "device" in named:
        named = named | {"device": torch.device("cpu")}
    arguments, named = tree_map(_here, arguments), tree_map(_here, named)
    result = operation(*arguments, **named)
    stays = name == "aten::copy_" and not isinstance(tensors[0], There)
    return result if device.type == "cpu" or stays else _wrapped(result)


def _here(value):
    return value.here if isinstance(value, There) else value


def _wrapped(result):
    return tree_map(lambda value: There(value) if isinstance(value, torch.Tensor) else value, result)
