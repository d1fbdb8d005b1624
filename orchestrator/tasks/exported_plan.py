"""A plan's models as files, with replacements for those that can't be exported, and a plan that grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from luts.estimate.design import ExpectedCosts
from luts.estimate.latencies import LatencyEstimates
from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.records import ChoiceRecord, ChosenModel, MeasurementRejectedError
from orchestrator.plan.build import remove_failed, replacement_models
from orchestrator.plan.plan import MIN_MODELS, Plan, PlanModel, model_id
from orchestrator.plan.sizing import NETWORKS_PER_STEP, next_networks
from orchestrator.tasks.models import exportable_files
from orchestrator.tasks.profiled_lut import prediction_width_of, sources_that_fit
from orchestrator.tasks.progress import Note, Progress
from orchestrator.tasks.sources import Sources
from orchestrator.wire.client import ModelFile
from search.spaces.registry import arch_from_json

REPLACEMENT_ROUNDS = 2
"""How often replacements are exported; the second time without blocks that failed twice."""


@dataclass(frozen=True)
class ExportedPlan:
    """A plan with its models' files by id, and why others could not be exported, by id."""

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
    """Export a plan's models, and replacements for those that can't be exported.

    Raises:
        BlocktimeError: too few for a LUT; gives the first reason.
    """
    files: dict[str, ModelFile] = {}
    unexported: dict[str, str] = {}
    lately, planned = plan.models, len(plan.models)
    for turn in range(1 + REPLACEMENT_ROUNDS):
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
            if turn < REPLACEMENT_ROUNDS
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
            f"{len(left.models)} of {planned} models can be exported, too few for a LUT; first: {name}: {reason}",
            code="too_few_models",
        )
    return ExportedPlan(left, files, unexported)


MAX_CHOICES = 4
"""How often networks are chosen: each time they are measured with the reference only, which takes longer."""


class GrowingPlan:
    """A plan that grows by networks chosen while it is measured; the journal keeps the choices for a resumed run.

    Args:
        begun: The seed design, exported.
        room: How many networks may be chosen.
        sources: LUTs that the user named.
        variant: How networks are exported.
        expectation: Expected costs, with the sources.
        workers: Exporting processes.
        progress: Gets a note for each choice.
    """

    def __init__(
        self,
        begun: ExportedPlan,
        room: int,
        sources: Sources,
        variant: Variant,
        expectation: ExpectedCosts,
        workers: int | None,
        progress: Progress,
    ) -> None:
        """Begin with the seed design."""
        self.plan, self.files, self.unexported = begun.plan, dict(begun.files), dict(begun.unexported)
        self._left, self._step = room, max(NETWORKS_PER_STEP, math.ceil(room / MAX_CHOICES))
        self._sources, self._variant, self._expectation = sources, variant, expectation
        self._workers, self._progress = workers, progress

    def width(self, estimation: LatencyEstimates) -> float | None:
        """Return the half-width of predictions of held-out networks."""
        return prediction_width_of(self.plan, self.files, self._sources)(estimation)

    def choose(
        self, pass_index: int, estimation: LatencyEstimates, half_width: float | None
    ) -> ChoiceRecord | None:
        """Choose the most informative further networks; None if no more are wanted or available."""
        if not self._left:
            return None
        fitting = sources_that_fit(self.plan, self.files, self._sources, estimation)
        failed = {model.model_id for model in self.plan.models} - estimation.ratios.ratios.keys()
        expectation = replace(self._expectation, sources=fitting)
        networks = next_networks(self.plan, expectation, failed, min(self._step, self._left))
        made = self._exported(networks)
        networks = [network for network in networks if network.model_id in made]
        if not networks:
            self._left = 0
            return None
        wide = "not known" if half_width is None else f"within {100 * half_width:.2f} %"
        by = ", ".join(source.name for source in fitting) or "physics alone, no source fits"
        reason = f"predictions {wide}; these take most off the rest of their error, by {by}"
        self._progress(Note(f"{len(networks)} more networks, {reason}"))
        models = [
            ChosenModel(model=n.model_id, arch=n.arch, artifact=made[n.model_id].sha256) for n in networks
        ]
        return ChoiceRecord(pass_index=pass_index, models=models, half_width=half_width, reason=reason)

    def take(self, choice: ChoiceRecord) -> Mapping[str, ModelFile]:
        """Export chosen networks and add them to the plan; called for a resumed run too.

        Raises:
            MeasurementRejectedError: a network is exported to another file than before.
            InvalidArtifactError: a network that can't be chosen.
        """
        networks = [self._network(chosen) for chosen in choice.models]
        files = self._exported(networks)
        for chosen in choice.models:
            file = files.get(chosen.model)
            if file is None or file.sha256 != chosen.artifact:
                raise MeasurementRejectedError(
                    f"the journal's network {chosen.model} is now exported to another file; its samples are not "
                    "mixed with new ones: start over with bench profile --fresh",
                    code="export_changed",
                )
        self.plan = replace(self.plan, models=(*self.plan.models, *networks))
        self.files |= files
        self._left = max(self._left - len(networks), 0)
        return files

    def _network(self, chosen: ChosenModel) -> PlanModel:
        arch = arch_from_json(chosen.arch)
        blocks = arch.keys()
        if arch.space != self.plan.space or model_id(blocks) != chosen.model or chosen.model in self.files:
            raise InvalidArtifactError(
                f"the journal's network {chosen.model} can't be chosen in this profile; start over with --fresh",
                code="bad_choice",
            )
        return PlanModel(chosen.model, chosen.arch, blocks, "design")

    def _exported(self, networks: list[PlanModel]) -> dict[str, ModelFile]:
        specs = {network.model_id: self._variant.export_spec(network.blocks) for network in networks}
        files, _, reasons = exportable_files(self._variant, specs, self._workers, self._progress)
        self.unexported |= reasons
        return files
