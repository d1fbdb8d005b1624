"""The programs of a table of operators, all of them fitted; their blocks are known once they are exported."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from luts.format.errors import UsageError
from luts.format.operators import OPERATORS
from orchestrator.plan.plan import MIN_MODELS, Plan, PlanModel, model_id

DIGEST = hashlib.sha256(OPERATORS.encode()).hexdigest()
"""In place of a space's: keys of operators mean the same in every version so far."""

_FIRST: Mapping[str, str] = {
    "mobilenetv3": "mobilenetv3_small_100", "convnext": "convnext_atto", "ghostnet": "ghostnet_100",
    "deit": "deit_tiny_patch16_224", "regnet": "regnety_002", "mobilevit": "mobilevit_xxs", "resnet": "resnet10t",
    "efficientnet": "efficientnet_b0", "fastvit": "fastvit_t8", "levit": "levit_128s", "repvit": "repvit_m0_9",
    "xcit": "xcit_nano_12_p16_224", "efficientvit_mit": "efficientvit_b0", "shvit": "shvit_s1",
    "edgenext": "edgenext_xx_small", "pvt_v2": "pvt_v2_b0", "mlp_mixer": "resmlp_12_224", "starnet": "starnet_s1",
    "efficientformer_v2": "efficientformerv2_s0", "swiftformer": "swiftformer_xs", "byobnet": "mobileone_s0",
    "metaformer": "poolformer_s12", "hgnet": "hgnetv2_b0", "tiny_vit": "tiny_vit_5m_224", "dla": "dla46_c",
    "efficientvit_msra": "efficientvit_m2", "coat": "coat_lite_tiny", "rexnet": "rexnet_100",
    "fasternet": "fasternet_t0", "pit": "pit_ti_224", "inception_next": "inception_next_atto",
    "mambaout": "mambaout_femto", "efficientformer": "efficientformer_l1", "cspnet": "cs3darknet_s",
    "vovnet": "ese_vovnet19b_dw", "crossvit": "crossvit_tiny_240", "visformer": "visformer_tiny",
    "sknet": "skresnet18", "hrnet": "hrnet_w18_small", "selecsls": "selecsls42b", "repghost": "repghostnet_050",
    "hardcorenas": "hardcorenas_a",
}  # fmt: skip
_OTHERS: Mapping[str, str] = {
    "mobilenetv3": "mobilenetv4_hybrid_medium mobilenetv4_conv_small lcnet_050",
    "convnext": "convnextv2_atto convnext_femto", "ghostnet": "ghostnet_050 ghostnetv2_100 ghostnet_130",
    "regnet": "regnetx_002", "mobilevit": "mobilevitv2_050 mobilevit_xs", "resnet": "resnet18",
    "efficientnet": "mixnet_s mnasnet_small mnasnet_100 mobilenetv1_100 mobilenetv2_050 mobilenetv2_100 tinynet_e "
    "semnasnet_075 spnasnet_100 fbnetc_100 efficientnet_lite0 mobilenet_edgetpu_v2_xs",
    "levit": "levit_conv_128s", "repvit": "repvit_m1_0", "xcit": "xcit_tiny_12_p16_224",
    "efficientvit_mit": "efficientvit_b1", "shvit": "shvit_s2", "edgenext": "edgenext_x_small",
    "pvt_v2": "pvt_v2_b1", "mlp_mixer": "mixer_s32_224 gmlp_ti16_224", "starnet": "starnet_s050",
    "efficientformer_v2": "efficientformerv2_s1", "byobnet": "gernet_s repvgg_a0", "hgnet": "hgnetv2_b1",
    "dla": "dla46x_c", "efficientvit_msra": "efficientvit_m0", "fasternet": "fasternet_t1",
    "vovnet": "ese_vovnet19b_slim_dw", "swin_transformer": "swin_tiny_patch4_window7_224",
    "cait": "cait_xxs24_224", "convit": "convit_tiny", "densenet": "densenet121",
    "eva": "eva02_tiny_patch14_224", "gcvit": "gcvit_xxtiny", "nfnet": "nf_regnet_b0",
    "vision_transformer": "vit_tiny_patch16_224", "twins": "twins_svt_small", "byoanet": "halonet26t",
    "lcnetv2": "lcnetv2_small", "cspnext": "cspnext_tiny", "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "iformer": "iformer_t", "lowformer": "lowformer_b0", "dpn": "dpn68",
}  # fmt: skip
NETWORKS = [
    (family, name) for each in (_FIRST, _OTHERS) for family, names in each.items() for name in names.split()
]
"""Families, which are timm's modules, and networks: the reference, one of each of 42 families, then more of these
and of others."""

DESIGNED, MEASURED_NETWORKS, SIZES_EACH = 68, 40, 2
"""Programs by default, with each kind outside the delegate once; sizes of such a kind in a whole suite."""

SEEDS = 10_000
"""Seeds; each has programs of its own up to this many of a kind."""


def plan_operators(seed: int, designed: int | None = None, models: int | None = None) -> Plan:
    """Return the plan of a table of operators, the same for the same arguments.

    Args:
        seed: Seed of the designed programs.
        designed: Number of designed programs; by default 68, or as large a part of `models`.
        models: Programs in all; by default the designed ones and 40 networks.

    Raises:
        UsageError: a seed or numbers out of range.
    """
    if not 0 <= seed < SEEDS:
        raise UsageError(f"--seed {seed}: designed programs have seeds below {SEEDS}", code="bad_seed")
    if designed is None:
        designed = DESIGNED if models is None else models * DESIGNED // (DESIGNED + MEASURED_NETWORKS)
    networks = MEASURED_NETWORKS if models is None else models - designed
    if not 1 <= networks <= len(NETWORKS) or designed + networks < MIN_MODELS:
        raise UsageError(
            f"{designed} designed programs and {networks} networks: choose --models larger than --design, by up to "
            f"{len(NETWORKS)}, and at least {MIN_MODELS}",
            code="bad_plan_size",
        )
    programs = [(family, f"timm:{name}") for family, name in NETWORKS[:networks]]
    planned: list[PlanModel] = []
    for family, program in programs + designed_programs(designed, seed):
        arch = json.dumps({"family": family, "program": program}, separators=(",", ":"))
        planned.append(PlanModel(model_id((program,)), arch, (), "design" if planned else "reference"))
    return Plan(OPERATORS, DIGEST, 0, (), seed, tuple(planned))


def designed_programs(count: int, seed: int) -> list[tuple[str, str]]:
    """Return families and names of designed programs, of each kind in proportion; fewer begin the list of more."""
    from orchestrator.export.lower.programs import CHAINS, PORTABLE  # imports torch

    numbers = {f"chain.{kind}": chain[0] for kind, chain in CHAINS.items()}
    numbers |= {f"portable.{kind}": SIZES_EACH for kind in PORTABLE}
    whole = sum(numbers.values())
    ranked = sorted(
        ((index + 0.5) / number, order, family, index)
        for order, (family, number) in enumerate(numbers.items())
        for index in range(math.ceil(number * count / whole) + 1)
    )
    return [(f, f"{f.replace('.', ':')}-{seed * SEEDS + index}") for _, _, f, index in ranked[:count]]
