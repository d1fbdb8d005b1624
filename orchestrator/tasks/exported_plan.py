"""A plan's models as files; those that can't be exported are left out, and others taken for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from luts.estimate.design import ExpectedCosts
from luts.format.errors import BlocktimeError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.plan.build import remove_failed, replacement_models
from orchestrator.plan.plan import MIN_MODELS, Plan
from orchestrator.tasks.models import exportable_files
from orchestrator.tasks.progress import Note, Progress
from orchestrator.wire.client import ModelFile

SPARE_TURNS = 2
"""Times that spares are exported: the second leaves out blocks that failed twice, so most of its models can be."""


@dataclass(frozen=True)
class ExportedPlan:
    """What can be measured of a plan: its models' files by id, and why others were left out, by id."""

    plan: Plan
    files: Mapping[str, ModelFile]
    unexported: Mapping[str, str]


def export_plan(
    plan: Plan,
    variant: Variant,
    expectation: ExpectedCosts,
    workers: int | None,
    progress: Progress,
) -> ExportedPlan:
    """Export a plan's models, and spares for those that can't be.

    Raises:
        BlocktimeError: so few can be that they make no LUT; gives the first reason.
    """
    files: dict[str, ModelFile] = {}
    unexported: dict[str, str] = {}
    lately, planned = plan.models, len(plan.models)
    for turn in range(1 + SPARE_TURNS):
        specs = {model.model_id: variant.export_spec(model.blocks) for model in lately}
        made, _, reasons = exportable_files(variant, specs, workers, progress)
        files |= made
        unexported |= reasons
        failed = [model for model in lately if model.model_id in reasons]
        for model in failed:
            reason = reasons[model.model_id]
            progress(Note(f"{model.model_id} ({model.role}) is left out, it can't be exported: {reason}"))
        lately = (
            tuple(replacement_models(plan, unexported.keys(), failed, expectation))
            if turn < SPARE_TURNS
            else ()
        )
        if not lately:
            break
        progress(Note(f"{len(lately)} other models are taken instead"))
        plan = replace(plan, models=(*plan.models, *lately))
    left = remove_failed(plan, unexported.keys())
    if len(left.models) < MIN_MODELS:
        name, reason = next(iter(unexported.items()))
        raise BlocktimeError(
            f"{len(left.models)} of {planned} models can be exported, too few for a LUT; first: {name}: {reason}"
        )
    return ExportedPlan(left, files, unexported)
