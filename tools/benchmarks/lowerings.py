"""Networks as their authors wrote them and as they are rewritten before lowering: delegates, latency ratios."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from luts.format.files import write_atomically
from luts.format.provenance import ROOT
from orchestrator.agent.runtime import read_pte
from orchestrator.export.artifacts.artifact import RELATIVE_TOLERANCE
from orchestrator.export.artifacts.spec import ExportSpec
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


def programs_of(network: str, folder: Path = PROGRAMS) -> dict[str, Path]:
    """Return the files of a network as its authors wrote it and rewritten."""
    return {when: folder / f"{network} {when}.pte" for when in ("as written", "rewritten")}


def lower_twice(network: str, spec: ExportSpec, folder: Path = PROGRAMS) -> dict[str, Any]:
    """Lower a network as written and rewritten, unless the programs are there; return a row of a table."""
    module, inputs = build_module(spec)
    row: dict[str, Any] = {"network": network}
    for when, file in programs_of(network, folder).items():
        if not file.exists():
            write_atomically(file, lower_to_executorch(module, inputs, plain=when == "as written").data)
        lowered = read_pte(file)
        count = sum(delegate.count for delegate in lowered.delegates)
        row |= {f"delegates {when}": count, f"outside {when}": sum(lowered.operators.values())}
    parity = check_parity(run_pte(file.read_bytes(), inputs), module, inputs, RELATIVE_TOLERANCE)
    left = ", ".join(f"{count} {name.split('.')[1]}" for name, count in lowered.operators.items())
    log(f"lowered {network}")
    return row | {"still outside": left, "relative error": parity.max_relative_error}


def measure_twice(files: dict[str, Path], device: str, budget_s: float, threads: int) -> dict[str, Any]:
    """Measure both programs of a network, interleaved; return a row of a table."""
    target = Target(device, threads=threads)
    command = MeasureCommand(files=tuple(files.values()), target=target, budget_s=budget_s)
    before, after = measure_networks(command, log).networks
    return {"ms as written": before.ms, "ratio": Interval(after.ratio, after.ratio_low, after.ratio_high)}


def main(arch: str = ARCH, device: str = "host", budget_s: float = BUDGET_S) -> Tables:
    """Lower a network of ours both ways, and measure it for each number of threads."""
    with tempfile.TemporaryDirectory() as folder:
        row = lower_twice(arch, ExportSpec(load_arch(arch).keys()), Path(folder))
        files = programs_of(arch, Path(folder))
        rows = [
            row | {"threads": threads} | measure_twice(files, device, budget_s, threads)
            for threads in THREADS
        ]
    return {"Latency of a rewritten network, as a ratio to that as written": rows}


def delegates() -> Tables:
    """Lower networks of timm both ways; resumes an interrupted run."""
    rows = [lower_twice(network, ExportSpec(module=f"timm:{network}")) for network in TIMM]
    return {"Networks of timm inside XNNPACK's delegates": rows}


def delegate_latencies(device: str = "host", budget_s: float = PAIR_BUDGET_S) -> Tables:
    """Measure both programs of each network that `delegates` lowered."""
    rows = [
        {"network": network, **measure_twice(files, device, budget_s, threads=1)}
        for network, files in zip(TIMM, map(programs_of, TIMM), strict=True)
        if all(file.exists() for file in files.values())
    ]
    return {"Latency of the rewritten networks, as a ratio to that as written": rows}
