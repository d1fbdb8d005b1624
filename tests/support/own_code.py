"""Code of a user's own: a block, its module, and a space of it, as a file that is written where a test wants it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import search.networks  # noqa: F401 - own code brings torch, which can't be forgotten and loaded again
from search.algorithms.objectives import OBJECTIVES
from search.algorithms.study import STRATEGIES
from search.blocks.spec import KINDS
from search.spaces import plugins
from search.spaces.registry import ARCHS
from search.spaces.registry import SPACES as REGISTERED_SPACES
from search.spaces.stages import HEADS, STAGE_KINDS, expand_stage

BLOCK = """
import dataclasses
from typing import ClassVar

from search.blocks import BlockSpec, OpList, param, register


@register
@dataclasses.dataclass(frozen=True)
class SqueezeExcite(BlockSpec):
    kind: ClassVar[str] = "own.se"
    examples: ClassVar[tuple[str, ...]] = ("own.se(c=8,r=4)@7", "own.se(c=16,r=4)@8")

    channels: int = param("c")
    reduction: int = param("r")

    @property
    def in_channels(self):
        return self.channels

    @property
    def removable(self):
        return True

    @property
    def squeezed(self):
        return self.channels // self.reduction

    def ops(self):
        ops = OpList(self.input_shape)
        gate = ops.linear(ops.linear(ops.mean(ops.input), self.squeezed), self.channels)
        ops.mul(ops.input, ops.elementwise(gate))
        return ops
"""

MODULE = """
from torch import nn

from search.networks import module_of


class Gated(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.squeeze = nn.Conv2d(spec.channels, spec.squeezed, 1)
        self.excite = nn.Conv2d(spec.squeezed, spec.channels, 1)

    def forward(self, x):
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


module_of.register(SqueezeExcite, Gated)
"""

SPACES = """
from search.blocks import MBConv
from search.spaces import Space, Stage, register_space, register_stage


@register_stage("own.se")
def stage(v, channels, resolution):
    width = int(v["width"])
    down = MBConv(resolution, channels, width, 3, 2, int(v["stride"]))
    return [down] + [SqueezeExcite(down.out_resolution, width, int(v["reduction"]))] * int(v["depth"])


_CHOICES = (("depth", (1, 2)), ("reduction", (2, 4)))
SPACE = register_space(
    Space(
        "own-se",
        (
            Stage("stem", "conv", (("stride", 2), ("kernel", 3)), (("width", (8, 16)),)),
            Stage("body", "own.se", (("stride", 2),), (("width", (16, 24)), *_CHOICES)),
            Stage("tail", "own.se", (("stride", 2),), (("width", (24, 32)), *_CHOICES)),
        ),
        stage_counts=(2, 3),
        resolutions=(32,),
        heads=("fc",),
        default_resolution=32,
        default_classes=10,
    )
)
"""

OPENER = '''

@dataclasses.dataclass(frozen=True)
class Opener:
    """For workers of a search: an architecture is as accurate as it has squeezed channels."""

    fingerprint: str = "a" * 64

    def open(self, worker=0):
        return self

    def accuracy(self, arch):
        return sum(block.squeezed for block in arch.blocks() if isinstance(block, SqueezeExcite)) / 100
'''


def write_own_code(folder: Path, *parts: str) -> Path:
    """A file of those parts, by default block, module, space and opener."""
    path = folder / "own_blocks.py"
    path.write_text("".join(parts or (BLOCK, MODULE, SPACES, OPENER)), encoding="utf-8")
    return path


@contextlib.contextmanager
def own_code_forgotten() -> Iterator[None]:
    """Begin without any code of a user's own, and forget afterwards what was imported and registered."""
    registries = KINDS, STAGE_KINDS, HEADS, REGISTERED_SPACES, ARCHS, STRATEGIES, OBJECTIVES
    with contextlib.ExitStack() as stack:
        for table in (*(registry.items for registry in registries), os.environ):
            stack.enter_context(mock.patch.dict(table))
        stack.enter_context(mock.patch.object(plugins, "_loaded", {}))
        stack.enter_context(mock.patch.object(plugins, "_installed_asked", False))
        stack.callback(expand_stage.cache_clear)
        stack.callback(_forget_modules)
        os.environ.pop(plugins.VARIABLE, None)
        yield


def _forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
