"""Compare ways to write the same network: XNNPACK delegates, operators outside them, latency ratios.

    python tools/compare_lowerings.py [--arch autovit-xxs-paper] [--rounds 100] [--threads 1 2]

All programs run in one process, in random order within every round, so that other load affects all of them equally;
a ratio is the median over rounds of latency against the shipped program's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import orchestrator.export.lower.executorch as lowering
import search.networks.mobilevit as mobilevit
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.rewrite import replace
from orchestrator.export.lower.source import build_module
from search.spaces import load_arch

MAX_RELATIVE_ERROR = 1e-6
"""Largest error relative to the output's scale with which a program counts as the same network."""

WARMUP_RUNS = 5


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


class CentringLayerNorm(MeanLayerNorm):
    """LayerNorm whose subtraction of the mean is one square linear layer."""

    centring: Tensor
    average: Tensor

    def __init__(self, norm: nn.LayerNorm):
        """Use the weights of a LayerNorm over the last dimension."""
        super().__init__(norm)
        (dim,) = norm.normalized_shape
        self.register_buffer("centring", torch.eye(dim) - 1.0 / dim)
        self.register_buffer("average", torch.full((1, dim), 1.0 / dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        centred = F.linear(x, self.centring)
        variance = F.linear(centred * centred, self.average)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


@dataclass(frozen=True)
class Variant:
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
                stack.enter_context(mock.patch.object(lowering, "linear_layernorm", self._swap_norms))
            yield

    def _swap_norms(self, module: nn.Module) -> nn.Module:
        norm = self.norm
        assert norm is not None
        return replace(module, lambda part: norm(part) if isinstance(part, nn.LayerNorm) else part)


def keep(norm: nn.LayerNorm) -> nn.Module:
    """Return the native LayerNorm."""
    return norm


CHANNELS_FIRST = (("unfold_patches", unfold_channels_first), ("fold_patches", fold_channels_first))
VARIANTS = (
    Variant("shipped"),
    Variant("obvious: 4-D matmul, native LayerNorm", (("attention", attention_4d), *CHANNELS_FIRST), keep),
    Variant("bmm with split, native LayerNorm", (("attention", attention_split), *CHANNELS_FIRST), keep),
    Variant("native LayerNorm", norm=keep),
    Variant("LayerNorm by mean", norm=MeanLayerNorm),
    Variant("LayerNorm by a centring matrix", norm=CentringLayerNorm),
    Variant("attention with split", (("attention", attention_split),)),
    Variant("unfold with channels first", CHANNELS_FIRST),
)


def lower_all(arch: str, folder: Path) -> list[dict[str, object]]:
    """Write every variant's program; return delegates, operators outside and CPU seconds of lowering."""
    module, inputs = build_module(ExportSpec(load_arch(arch).keys()))
    rows: list[dict[str, object]] = []
    lowering.lower_to_executorch(nn.Conv2d(3, 8, 1).eval(), inputs)  # pays for imports
    for index, variant in enumerate(VARIANTS):
        started = time.process_time()
        with variant.active():
            lowered = lowering.lower_to_executorch(module, inputs)
        seconds = time.process_time() - started
        check_parity(run_pte(lowered.data, inputs), module, inputs, MAX_RELATIVE_ERROR)
        (folder / f"{index}.pte").write_bytes(lowered.data)
        outside = " ".join(f"{count} {name.split('.')[1]}" for name, count in lowered.operators)
        rows.append(
            {"name": variant.name, "delegates": lowered.delegates, "outside": outside, "lower_cpu_s": seconds}
        )
        print(f"lowered {variant.name}", file=sys.stderr)
    return rows


def time_all(folder: Path, side: int, rounds: int, threads: int) -> list[float]:
    """Return the latency ratio of every program to the first, in this process with `threads` threads."""
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)
    inputs = (torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)),)
    programs = [portable_lib._load_for_executorch(str(folder / f"{i}.pte")) for i in range(len(VARIANTS))]
    for program in programs:
        for _ in range(WARMUP_RUNS):
            program.run_method("forward", inputs)
    ratios: list[list[float]] = [[] for _ in programs]
    for _ in range(rounds):
        latency_ns = [0] * len(programs)
        for index in random.sample(range(len(programs)), len(programs)):
            programs[index].run_method("forward", inputs)
            started = time.perf_counter_ns()
            programs[index].run_method("forward", inputs)
            latency_ns[index] = time.perf_counter_ns() - started
        for index, own in enumerate(latency_ns):
            ratios[index].append(own / latency_ns[0])
    return [statistics.median(own) for own in ratios]


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="autovit-xxs-paper")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--timing", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.timing:
        folder, side = args.timing
        print(json.dumps(time_all(Path(folder), int(side), args.rounds, args.threads[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = lower_all(args.arch, Path(folder))
        side = load_arch(args.arch).resolution
        for threads in args.threads:
            command = [sys.executable, __file__, "--timing", folder, str(side)]
            command += ["--rounds", str(args.rounds), "--threads", str(threads)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for row, ratio in zip(rows, json.loads(output.splitlines()[-1]), strict=True):
                row[f"t{threads}"] = f"{ratio:.3f}"
    columns = " | ".join(f"ratio, {n} thread{'s' * (n > 1)}" for n in args.threads)
    print(f"| variant | delegates | outside | {columns} | lowering, CPU s |")
    print("|---" * (4 + len(args.threads)) + "|")
    for row in rows:
        values = " | ".join(str(row[f"t{n}"]) for n in args.threads)
        print(
            f"| {row['name']} | {row['delegates']} | {row['outside'] or '-'} | {values} "
            f"| {row['lower_cpu_s']:.1f} |"
        )


if __name__ == "__main__":
    main()
