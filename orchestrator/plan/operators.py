"""The programs of a table of operators: designed ones and networks of many families, all of them fitted.

The blocks of such a plan are operators, known only once a program is exported (`orchestrator.tasks.exported_plan`).
"""

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

NETWORKS: Mapping[str, str] = {
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
"""Networks of timm by family, its module in `timm.models`; below 60 ms on a desktop core.

The first is the reference, of the size of most programs.
"""

DESIGNED, MEASURED_NETWORKS = 180, 40
"""Programs by default."""

SIZES_EACH = 2
"""Programs of each kind outside the delegate in a whole suite: two sizes show what a size costs."""

SEED_STRIDE, MAX_SEED = 10_000, 99_999
"""Programs of two seeds have different numbers up to this many of a kind; numbers have up to 9 digits."""


def plan_operators(seed: int, designed: int | None = None, models: int | None = None) -> Plan:
    """Return the plan of a table of operators, the same for the same arguments.

    Args:
        seed: Seed of the designed programs.
        designed: Number of designed programs; by default 180, or as large a part of `models`.
        models: Programs in all; by default the designed ones and 40 networks.

    Raises:
        UsageError: a seed out of range; no network is left, or more than there are, or fewer than three programs.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed {seed}: designed programs have seeds 0 to {MAX_SEED}", code="bad_seed")
    if designed is None:
        designed = DESIGNED if models is None else models * DESIGNED // (DESIGNED + MEASURED_NETWORKS)
    networks = MEASURED_NETWORKS if models is None else models - designed
    if not 1 <= networks <= len(NETWORKS) or designed + networks < MIN_MODELS:
        raise UsageError(
            f"{networks} networks and {designed} designed programs: a table of operators has 1 to {len(NETWORKS)} "
            f"networks, and {MIN_MODELS} programs or more; choose --models so much above --design",
            code="bad_plan_size",
        )
    programs = [(family, f"timm:{name}") for family, name in NETWORKS.items()][:networks]
    planned = [
        PlanModel(
            model_id((program,)),
            json.dumps({"family": family, "program": program}, separators=(",", ":")),
            (),
            "design" if index else "reference",
        )
        for index, (family, program) in enumerate(programs + designed_programs(designed, seed))
    ]
    return Plan(OPERATORS, DIGEST, 0, (), seed, tuple(planned))


def designed_programs(count: int, seed: int) -> list[tuple[str, str]]:
    """Return families and names of designed programs, of each kind in proportion; the first of more are fewer's."""
    from orchestrator.export.lower.programs import CHAINS, PORTABLE  # imports torch

    numbers = {f"chain.{kind}": chain[0] for kind, chain in CHAINS.items()}
    numbers |= dict.fromkeys((f"portable.{kind}" for kind in PORTABLE), SIZES_EACH)
    ranked = sorted(
        ((index + 0.5) / number, order, family, index)
        for order, (family, number) in enumerate(numbers.items())
        for index in range(math.ceil(number * count / DESIGNED) + 1)
    )
    return [
        (family, f"{family.replace('.', ':')}-{seed * SEED_STRIDE + index}")
        for _, _, family, index in ranked[:count]
    ]
