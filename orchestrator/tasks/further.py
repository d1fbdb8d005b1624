"""Networks that a profile chooses while it measures, exported as they are chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from luts.estimate.design import ExpectedCosts
from luts.estimate.latencies import LatencyEstimates
from luts.format.errors import InvalidArtifactError
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.records import ChoiceRecord, ChosenModel, MeasurementRejectedError
from orchestrator.plan.plan import PlanModel, model_id
from orchestrator.plan.sizing import NETWORKS_PER_STEP, next_networks
from orchestrator.tasks.exported_plan import ExportedPlan
from orchestrator.tasks.models import exportable_files
from orchestrator.tasks.profiled_lut import prediction_width_of, sources_that_fit
from orchestrator.tasks.progress import Note, Progress
from orchestrator.tasks.sources import Sources
from orchestrator.wire.client import ModelFile
from search.spaces.registry import arch_from_json

MOST_CHOICES = 4
"""Times that networks are chosen: each time they are measured beside the reference alone, which takes longer."""


class FurtherNetworks:
    """The plan as it grows; what was chosen stands in the journal, and a run that goes on is told of it again.

    Args:
        begun: What is measured at first.
        room: How many networks may be chosen.
        sources: That were named.
        variant: How networks are exported.
        expectation: With the sources.
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
        self.plan, self.files, self.unexported = begun.plan, dict(begun.files), dict(begun.unexported)
        self._left, self._step = room, max(NETWORKS_PER_STEP, math.ceil(room / MOST_CHOICES))
        self._sources, self._variant, self._expectation = sources, variant, expectation
        self._workers, self._progress = workers, progress

    def width(self, estimation: LatencyEstimates) -> float | None:
        """How narrow predictions of held-out networks are."""
        return prediction_width_of(self.plan, self.files, self._sources)(estimation)

    def choose(
        self, pass_index: int, estimation: LatencyEstimates, half_width: float | None
    ) -> ChoiceRecord | None:
        """Networks that tell most beyond those that were measured; None where no more are wanted or can be."""
        if not self._left:
            return None
        kept = sources_that_fit(self.plan, self.files, self._sources, estimation)
        failed = {model.model_id for model in self.plan.models} - estimation.ratios.ratios.keys()
        expectation = replace(self._expectation, sources=kept)
        networks = next_networks(self.plan, expectation, failed, min(self._step, self._left))
        made = self._exported(networks)
        networks = [network for network in networks if network.model_id in made]
        if not networks:
            self._left = 0
            return None
        wide = "not known" if half_width is None else f"within {100 * half_width:.2f} %"
        by = ", ".join(source.name for source in kept) or "physics alone, no source fits"
        reason = f"predictions {wide}; these take most off the rest of their error, by {by}"
        self._progress(Note(f"{len(networks)} more networks, {reason}"))
        models = [
            ChosenModel(model=n.model_id, arch=n.arch, artifact=made[n.model_id].sha256) for n in networks
        ]
        return ChoiceRecord(pass_index=pass_index, models=models, half_width=half_width, reason=reason)

    def take(self, choice: ChoiceRecord) -> Mapping[str, ModelFile]:
        """Raises MeasurementRejectedError where a model file is not what it was, InvalidArtifactError for a network
        that can't be chosen."""
        networks = [self._network(chosen) for chosen in choice.models]
        files = self._exported(networks)
        for chosen in choice.models:
            file = files.get(chosen.model)
            if file is None or file.sha256 != chosen.artifact:
                raise MeasurementRejectedError(
                    f"the journal's network {chosen.model} is exported otherwise now; its samples are not mixed "
                    "with new ones: begin anew with bench profile --fresh"
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
                f"the journal's network {chosen.model} can't be chosen in this profile; begin anew with --fresh"
            )
        return PlanModel(chosen.model, chosen.arch, blocks, "design")

    def _exported(self, networks: list[PlanModel]) -> dict[str, ModelFile]:
        specs = {network.model_id: self._variant.export_spec(network.blocks) for network in networks}
        files, _, reasons = exportable_files(self._variant, specs, self._workers, self._progress)
        self.unexported |= reasons
        return files
