"""Ways to write the same network, ours and those of timm: delegates, operators outside them, latency ratios."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import search.networks.mobilevit as mobilevit
from luts.format.files import write_atomically
from luts.format.provenance import ROOT
from orchestrator.agent.runtime import read_pte
from orchestrator.export.artifacts.artifact import RELATIVE_TOLERANCE
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

_TIMM = """
ghostnet_100 convnext_atto poolformer_s12 crossvit_tiny_240 mobilevitv2_050 convnextv2_atto skresnet18
coat_lite_tiny edgenext_xx_small xcit_nano_12_p16_224 resnet10t swin_tiny_patch4_window7_224
mobilenetv4_hybrid_medium inception_next_atto cait_xxs24_224 convit_tiny cs3darknet_s deit_tiny_patch16_224
densenet121 dla46x_c efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientvim_m1 efficientvit_b0
efficientvit_m0 ese_vovnet19b_slim_dw eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 gcvit_xxtiny gernet_s
ghostnet_050 ghostnetv2_100 hardcorenas_a hgnetv2_b0 hrnet_w18_small lcnet_050 levit_128s levit_conv_128s
mixer_s32_224 mixnet_s mnasnet_small mobilenetv1_100 mobilenetv2_050 mobilevit_xxs nf_regnet_b0 pit_ti_224
pvt_v2_b0 regnetx_002 regnety_002 repghostnet_050 resnet18 rexnet_100 semnasnet_075 shvit_s1 starnet_s050
swiftformer_xs tiny_vit_5m_224 vit_tiny_patch16_224 mobilenetv3_small_100 efficientnet_lite0 mnasnet_100
repvit_m0_9 mobileone_s0 tinynet_e fbnetc_100 mobilenetv4_conv_small starnet_s1 resmlp_12_224
efficientvit_m2 mobilenetv2_100 gmlp_ti16_224 visformer_tiny repvgg_a0 mambaout_femto selecsls42b
twins_svt_small efficientvit_b1 halonet26t mobilenet_edgetpu_v2_xs spnasnet_100 ghostnet_130
"""
TIMM = _TIMM.split()
"""Small networks of most families of timm; first those of which much was outside the delegates."""
PROGRAMS = ROOT / "build" / "delegates"
"""Where `delegates` leaves two programs for each network of timm."""
PAIR_BUDGET_S = 10.0
"""Time to measure two programs of a network, some hundred calls of each."""


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
    """Functions of search/networks/mobilevit.py to exchange, and how LayerNorms are replaced."""

    name: str
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    norms: Callable[[nn.Module], nn.Module] = rewrite.linear_layernorm

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Capture and lower networks this way within the context."""
        with (
            mock.patch.dict(vars(mobilevit), self.functions),
            mock.patch.object(rewrite, "linear_layernorm", self.norms),
        ):
            yield


def mean_norms(module: nn.Module) -> nn.Module:
    """Spell LayerNorms out with `mean`."""
    return rewrite.replace(
        module, lambda part: MeanLayerNorm(part) if isinstance(part, nn.LayerNorm) else part
    )


CHANNELS_FIRST: Mapping[str, Callable[..., Any]] = {
    "unfold_patches": unfold_channels_first,
    "fold_patches": fold_channels_first,
}
VARIANTS = (
    LoweringVariant("shipped"),
    LoweringVariant("4-D matmul, native LayerNorm", {"attention": attention_4d, **CHANNELS_FIRST}, deepcopy),
    LoweringVariant(
        "bmm with split, native LayerNorm", {"attention": attention_split, **CHANNELS_FIRST}, deepcopy
    ),
    LoweringVariant("native LayerNorm", norms=deepcopy),
    LoweringVariant("LayerNorm by mean", norms=mean_norms),
    LoweringVariant("attention with split", {"attention": attention_split}),
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


def delegates() -> Tables:
    """Lower networks of timm as their authors wrote them and rewritten, unless the programs are there already."""
    rows = []
    for network in TIMM:
        module, inputs = build_module(ExportSpec(module=f"timm:{network}"))
        row: dict[str, Any] = {"network": network}
        for when, file in programs_of(network).items():
            if not file.exists():
                plain = when == "as written"
                write_atomically(file, lower_to_executorch(module, inputs, plain=plain).data)
            lowered = read_pte(file)
            count = sum(delegate.count for delegate in lowered.delegates)
            row |= {f"delegates {when}": count, f"outside {when}": sum(lowered.operators.values())}
        parity = check_parity(run_pte(file.read_bytes(), inputs), module, inputs, RELATIVE_TOLERANCE)
        left = ", ".join(f"{count} {name.split('.')[1]}" for name, count in lowered.operators.items())
        rows.append(row | {"still outside": left, "relative error": parity.max_relative_error})
        log(f"lowered {network}")
    return {"Networks of timm inside XNNPACK's delegates": rows}


def programs_of(network: str) -> dict[str, Path]:
    """Return the files of a network of timm as its authors wrote it and rewritten."""
    return {when: PROGRAMS / f"{network} {when}.pte" for when in ("as written", "rewritten")}


def delegate_latencies(device: str = "host", budget_s: float = PAIR_BUDGET_S) -> Tables:
    """Measure both programs of each network that `delegates` lowered, interleaved."""
    rows = []
    for network in TIMM:
        files = tuple(programs_of(network).values())
        if not all(file.exists() for file in files):
            continue
        command = MeasureCommand(files=files, target=Target(device, threads=1), budget_s=budget_s)
        before, after = measure_networks(command, log).networks
        ratio = Interval(after.ratio, after.ratio_low, after.ratio_high)
        rows.append({"network": network, "ms as written": before.ms, "ratio": ratio})
    return {"Latency of the rewritten networks, as a ratio to that as written": rows}
