"""Ways to write the same network: XNNPACK delegates, operators outside them, latency ratios."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

import search.networks.mobilevit as mobilevit
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower import rewrite
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.source import build_module
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.target import Target
from search.spaces import load_arch
from tools.tables import Interval, Tables, log

ARCH = "autovit-xxs-paper"
THREADS = (1, 2)
BUDGET_S = 120.0
"""Time of each measurement."""
MAX_RELATIVE_ERROR = 1e-6
"""Largest error relative to the output's scale with which a program counts as the same network."""


def attention_4d(qkv: Tensor, heads: int) -> Tensor:
    """Compute attention as in textbooks, with matmul of rank 4."""
    batch, tokens, channels = qkv.shape
    qkv = qkv.reshape(batch, tokens, 3, heads, channels // (3 * heads)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    scores = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    out: Tensor = scores @ v
    return out.transpose(1, 2).reshape(batch, tokens, -1)


def attention_split(qkv: Tensor, heads: int) -> Tensor:
    """Compute the shipped attention with `split` instead of slices."""
    batch, tokens, channels = qkv.shape
    head_dim = channels // (3 * heads)
    qkv = qkv.reshape(batch, tokens, 3 * heads, head_dim).transpose(1, 2)
    q, k, v = (part.reshape(batch * heads, tokens, head_dim) for part in torch.split(qkv, heads, dim=1))
    scores = torch.bmm(q * head_dim**-0.5, k.transpose(1, 2)).softmax(-1)
    out = torch.bmm(scores, v).reshape(batch, heads, tokens, head_dim)
    return out.transpose(1, 2).reshape(batch, tokens, heads * head_dim)


def unfold_channels_first(x: Tensor, patch: int) -> Tensor:
    """Unfold by two permutations with channels before the map's sides; for even maps."""
    batch, dim, height, width = x.shape
    rows, columns = height // patch, width // patch
    x = x.reshape(batch * dim * rows, patch, columns, patch).transpose(1, 2)
    x = x.reshape(batch, dim, rows * columns, patch * patch).transpose(1, 3)
    return x.reshape(batch * patch * patch, rows * columns, dim)


def fold_channels_first(x: Tensor, patch: int, batch: int, height: int, width: int) -> Tensor:
    """Invert `unfold_channels_first`."""
    dim, rows, columns = x.shape[2], height // patch, width // patch
    x = x.reshape(batch, patch * patch, rows * columns, dim).transpose(1, 3)
    x = x.reshape(batch * dim * rows, columns, patch, patch).transpose(1, 2)
    return x.reshape(batch, dim, height, width)


class MeanLayerNorm(nn.Module):
    """LayerNorm spelled out with `mean` over the last dimension."""

    def __init__(self, norm: nn.LayerNorm):
        """Use the weights of a LayerNorm."""
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


@dataclass(frozen=True)
class LoweringVariant:
    """Functions of search/networks/mobilevit.py to exchange, and the replacement of each LayerNorm."""

    name: str
    functions: tuple[tuple[str, Callable[..., Tensor]], ...] = ()
    norm: Callable[[nn.LayerNorm], nn.Module] | None = None

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Capture and lower networks this way within the context."""
        with contextlib.ExitStack() as stack:
            for name, function in self.functions:
                stack.enter_context(mock.patch.object(mobilevit, name, function))
            if self.norm is not None:
                stack.enter_context(mock.patch.object(rewrite, "linear_layernorm", self._swap_norms))
            yield

    def _swap_norms(self, module: nn.Module) -> nn.Module:
        norm = self.norm
        assert norm is not None
        return rewrite.replace(module, lambda part: norm(part) if isinstance(part, nn.LayerNorm) else part)


def _keep(norm: nn.LayerNorm) -> nn.Module:
    return norm


CHANNELS_FIRST = (("unfold_patches", unfold_channels_first), ("fold_patches", fold_channels_first))
VARIANTS = (
    LoweringVariant("shipped"),
    LoweringVariant("4-D matmul, native LayerNorm", (("attention", attention_4d), *CHANNELS_FIRST), _keep),
    LoweringVariant(
        "bmm with split, native LayerNorm", (("attention", attention_split), *CHANNELS_FIRST), _keep
    ),
    LoweringVariant("native LayerNorm", norm=_keep),
    LoweringVariant("LayerNorm by mean", norm=MeanLayerNorm),
    LoweringVariant("attention with split", (("attention", attention_split),)),
)


def main(arch: str = ARCH, device: str = "host", budget_s: float = BUDGET_S) -> Tables:
    """Lower the network in every way, and measure the programs in one interleaved run for each number of threads.

    Ratios of latency are to the shipped program.
    """
    module, inputs = build_module(ExportSpec(load_arch(arch).keys()))
    lower_to_executorch(nn.Conv2d(3, 8, 1).eval(), inputs)  # pays for imports
    rows: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, variant in enumerate(VARIANTS):
            started_s = time.process_time()
            with variant.active():
                lowered = lower_to_executorch(module, inputs)
            seconds = time.process_time() - started_s
            check_parity(run_pte(lowered.data, inputs), module, inputs, MAX_RELATIVE_ERROR)
            file = Path(folder) / f"{number}.pte"
            file.write_bytes(lowered.data)
            outside = sum(count for _, count in lowered.operators)
            rows[str(file)] = {
                "variant": variant.name,
                "delegates": lowered.delegates,
                "operators outside": outside,
                "lowering, CPU s": seconds,
            }
            log(f"lowered {variant.name}")
        for threads in THREADS:
            command = MeasureCommand(
                files=tuple(map(Path, rows)), target=Target(device, threads=threads), budget_s=budget_s
            )
            for measured in measure_networks(command, log).networks:
                ratio = Interval(measured.ratio, measured.ratio_low, measured.ratio_high)
                rows[measured.model][f"{threads} threads"] = ratio
    return {f"Ways to lower {arch}": list(rows.values())}
