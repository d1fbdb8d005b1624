"""Networks with classifiers of further numbers of classes, beside those of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.plan.plan import Plan, PlanModel, model_id
from search.spaces.registry import arch_from_json

NETWORKS = 6
"""Most for each number of classes; classifiers at other places follow from physics (`luts.classifiers`)."""


def with_heads(plan: Plan, heads: Sequence[int]) -> Plan:
    """The plan and, for each further number of classes, fitted networks of it with another classifier.

    Each differs from a network of the plan in the classifier alone, and shows one that the others do not.
    """
    models = list(plan.models)
    for classes in dict.fromkeys(heads):
        if classes == plan.classes:
            continue
        shown: dict[str, PlanModel] = {}
        for model in plan.models:
            if not model.arch or model.role == "heldout":
                continue
            arch = arch_from_json(model.arch).with_classes(classes)
            blocks = arch.keys()
            shown.setdefault(blocks[-1], PlanModel(model_id(blocks), arch.to_json(), blocks, "design"))
        models += list(shown.values())[:NETWORKS]
    return replace(plan, models=tuple(models))
