"""From a plan to a LUT: its models as files, more of them while it is measured, and the LUT of the measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from luts.build import build_lut, fit_so_far, prediction_half_width
from luts.estimate.design import ExpectedCosts
from luts.estimate.latencies import LatencyEstimates, SegmentId
from luts.estimate.sources import SourceEntries
from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.lut import Lut
from luts.format.operators import OPERATORS, parse_operator
from luts.format.schema import MAX_REASON, DeviceInfo, LutInputs, ModelSpec, UnitSegments, Versions
from orchestrator.export.artifacts.artifact import default_root
from orchestrator.export.artifacts.spec import ExportSpec, Variant, toolchain
from orchestrator.export.lower.operators import read_operators
from orchestrator.journal.conditions import migrated_operations
from orchestrator.journal.records import ChoiceRecord, ChosenModel, MeasurementRejectedError, PlacedType
from orchestrator.measure.engine import ModelSet
from orchestrator.measure.session import Measurement
from orchestrator.plan.build import NETWORKS_PER_STEP, next_networks, remove_failed, replacement_models
from orchestrator.plan.plan import MIN_MODELS, Plan, PlanModel, features_of_plan, model_id
from orchestrator.simulate.device import write_model
from orchestrator.tasks.models import export_possible, exportable_files, files_of
from orchestrator.tasks.progress import Note, Progress
from orchestrator.tasks.sources import NO_SOURCES, Sources
from orchestrator.wire.client import ModelFile
from search.blocks import boundary_bytes, parse_keys
from search.spaces.registry import arch_from_json

REPLACEMENT_ROUNDS = 2
"""How often replacements are exported; the second time without blocks that failed twice."""


@dataclass(frozen=True)
class ExportedPlan:
    """A plan with its models' files by id, why others could not be exported, and the LUTs to learn from."""

    plan: Plan
    files: Mapping[str, ModelFile]
    unexported: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)

    @property
    def model_set(self) -> ModelSet:
        """All models, as they are measured."""
        return ModelSet(self.files, self.plan.reference.model_id, self.plan.digest, self.plan.seed)

    def prediction_half_width(self, estimation: LatencyEstimates) -> float | None:
        """Return how narrow predictions of held-out models are, for stopping early; without placements."""
        if all(model.role != "heldout" for model in self.plan.models):
            return None
        features = features_of_plan(self.plan)
        return prediction_half_width(self._specs, estimation, features, self.sources.priors())

    def fitting_sources(self, estimation: LatencyEstimates) -> tuple[SourceEntries, ...]:
        """Return the sources that the samples so far do not contradict."""
        features, priors = features_of_plan(self.plan), self.sources.priors()
        return fit_so_far(self._specs, estimation, features, priors)[1].sources

    @property
    def _specs(self) -> list[ModelSpec]:
        return [_model_spec(model, self.files[model.model_id], {}, {}, {}) for model in self.plan.models]

    def lut(self, measurement: Measurement, device_name: str, exporter: str = "") -> Lut:
        """Make the LUT of a measurement, with the models that were not exported or failed on the device.

        Keys of the space that no model holds are in it too, resting on the physical prior alone and saying so.

        Args:
            measurement: Of `model_set`.
            device_name: Name of the device in the LUT.
            exporter: What made the files; by default this installation.
        """
        hello, header, seen = measurement.hello, measurement.header, measurement.conditions
        usage = measurement.usages.get(header.reference_id)
        features = features_of_plan(self.plan)
        if self.plan.space == OPERATORS:  # what the sources know of others is of use for unknown networks
            known = (key for source in self.sources.each for key in source.entries.entry_ms)
            features |= {key: parse_operator(key).features for key in known}
        inputs = LutInputs(
            device=DeviceInfo(
                name=device_name,
                model=hello.device.model,
                soc=hello.device.soc or "",
                os=hello.device.os,
                os_build=hello.device.os_build or "",
                cores=hello.device.cores,
                memory_bytes=hello.device.memory_bytes,
            ),
            versions=Versions(
                runtime=header.identity.runtime,
                exporter=exporter or exporter_version(Variant.parse(header.identity.variant)),
                agent=header.identity.agent,
            ),
            space=self.plan.space,
            space_hash=self.plan.space_digest,
            variant=header.identity.variant,
            policy={**measurement.policy, "seed": self.plan.seed},
            reference_id=header.reference_id,
            created=header.created,
            measured="simulated" if header.simulated else "measured",
            failures={
                name: reason[:MAX_REASON]
                for name, reason in {**self.unexported, **measurement.failures}.items()
            },
            fixed_performance=header.identity.fixed_performance,
            **asdict(seen),
            units=_units(measurement.estimates),
            reference_usage={
                name: value for name, value in (usage.columns() if usage else {}).items() if value is not None
            },
            sources=self.sources.stored_for(features),
        )
        models = [
            _model_spec(
                model,
                self.files[model.model_id],
                measurement.failures,
                measurement.placements,
                measurement.traces,
            )
            for model in self.plan.models
            if model.model_id not in measurement.failures
        ]
        valid = measurement.estimates.without(measurement.failures)
        return build_lut(inputs, models, valid, features)


def exporter_version(variant: Variant) -> str:
    """Return name and version of the tools that made the model files."""
    if variant.is_simulated:
        return "none, simulated models are lists of blocks"
    versions = toolchain()
    return f"torch {versions['torch']}, executorch {versions['executorch']}, coremltools {versions['coremltools']}"


def _units(estimation: LatencyEstimates) -> tuple[UnitSegments, ...]:
    places: dict[str, list[SegmentId]] = {}
    for segment in estimation.segments:
        place = segment.batch, segment.segment
        if place in estimation.unit_of:
            places.setdefault(estimation.unit_of[place], []).append(place)
    return tuple(UnitSegments(unit=unit, sessions=tuple(places[unit])) for unit in sorted(places))


def _model_spec(
    model: PlanModel,
    file: ModelFile,
    failures: Mapping[str, str],
    placed: Mapping[str, Sequence[PlacedType]],
    traced: Mapping[str, Sequence[float]],
) -> ModelSpec:
    """Describe a planned model for the estimation; a removal whose base failed counts as a design model."""
    alone = model.base_id in failures
    known = model.role == "removal" and not alone and model.base_id in placed and model.model_id in placed
    return ModelSpec(
        model_id=model.model_id,
        arch=model.arch,
        blocks=model.blocks,
        boundary_bytes=0 if model.program else boundary_bytes(parse_keys(model.blocks)),
        artifact_sha256=file.sha256,
        split="heldout" if model.role == "heldout" else "fit",
        role="design" if alone else model.role,
        base_id="" if alone else model.base_id,
        removed_key="" if alone else model.removed_key,
        migrated_operations=migrated_operations(placed[model.base_id], placed[model.model_id])
        if known
        else None,
        operator_ms=tuple(traced[model.model_id]) if model.model_id in traced else None,
    )


def export_plan(
    plan: Plan,
    variant: Variant,
    expectation: ExpectedCosts,
    workers: int | None,
    progress: Progress,
    sources: Sources = NO_SOURCES,
) -> ExportedPlan:
    """Export a plan's models, and replacements for those that can't be exported.

    Raises:
        BlocktimeError: too few for a LUT; gives the first reason.
    """
    files: dict[str, ModelFile] = {}
    unexported: dict[str, str] = {}
    lately, planned = plan.models, len(plan.models)
    for turn in range(1 + REPLACEMENT_ROUNDS):
        if plan.space == OPERATORS:
            plan, made, reasons = _export_programs(plan, variant, workers, progress)
        else:
            specs = {model.model_id: export_spec_of(model, variant) for model in lately}
            made, _, reasons = exportable_files(variant, specs, workers, progress)
        files |= made
        unexported |= reasons
        failed = [model for model in lately if model.model_id in reasons]
        for model in failed:
            named, reason = model.program or model.role, reasons[model.model_id]
            progress(Note(f"{model.model_id} ({named}) is left out, it can't be exported: {reason}"))
        lately = (
            tuple(replacement_models(plan, unexported.keys(), failed, expectation))
            if turn < REPLACEMENT_ROUNDS and plan.space != OPERATORS
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
    return ExportedPlan(left, files, unexported, sources)


def export_spec_of(model: PlanModel, variant: Variant) -> ExportSpec:
    """Return how a planned model is exported."""
    return variant.export_spec(() if model.program else model.blocks, model.program)


def _export_programs(
    plan: Plan, variant: Variant, workers: int | None, progress: Progress
) -> tuple[Plan, dict[str, ModelFile], dict[str, str]]:
    """Export programs and list their operators, which are all that a simulated device runs of them."""
    if not variant.is_simulated and (variant.runtime, variant.target) != ("executorch", "xnnpack"):
        raise UsageError(f"{variant.name} has no operators; add --backend xnnpack", code="unknown_operators")
    specs = {model.model_id: export_spec_of(model, variant) for model in plan.models}
    artifacts, reasons = export_possible(specs, workers, progress)
    files, blocks = files_of(artifacts), dict[str, tuple[str, ...]]()
    for name in artifacts:
        try:
            blocks[name] = tuple(operator.key for operator in read_operators(files[name].path))
        except InvalidArtifactError as error:
            reasons[name] = str(error)
    if variant.is_simulated:
        files = {name: write_model(keys, default_root() / "simulated") for name, keys in blocks.items()}
    models = [replace(model, blocks=blocks.get(model.model_id, ())) for model in plan.models]
    return replace(plan, models=tuple(models)), files, reasons


MAX_CHOICES = 4
"""How often networks are chosen: each time they are measured with the reference only, which takes longer."""


class GrowingPlan:
    """A plan that grows by networks chosen while it is measured; the journal keeps the choices for a resumed run.

    Args:
        begun: The seed design, exported.
        room: How many networks may be chosen.
        variant: How networks are exported.
        expectation: Expected costs, with the sources.
        workers: Exporting processes.
        progress: Gets a note for each choice.
    """

    def __init__(
        self,
        begun: ExportedPlan,
        room: int,
        variant: Variant,
        expectation: ExpectedCosts,
        workers: int | None,
        progress: Progress,
    ) -> None:
        """Begin with the seed design."""
        self.exported = begun
        self._left, self._step = room, max(NETWORKS_PER_STEP, math.ceil(room / MAX_CHOICES))
        self._variant, self._expectation = variant, expectation
        self._workers, self._progress = workers, progress

    def width(self, estimation: LatencyEstimates) -> float | None:
        """Return the half-width of predictions of held-out networks."""
        return self.exported.prediction_half_width(estimation)

    def choose(
        self, pass_index: int, estimation: LatencyEstimates, half_width: float | None
    ) -> ChoiceRecord | None:
        """Choose the most informative further networks; None if no more are wanted or available."""
        if not self._left:
            return None
        plan, fitting = self.exported.plan, self.exported.fitting_sources(estimation)
        failed = {model.model_id for model in plan.models} - estimation.ratios.keys()
        expectation = replace(self._expectation, sources=fitting)
        networks = next_networks(plan, expectation, failed, min(self._step, self._left))
        made = self._export(networks)
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
        files = self._export(networks)
        for chosen in choice.models:
            file = files.get(chosen.model)
            if file is None or file.sha256 != chosen.artifact:
                raise MeasurementRejectedError(
                    f"the journal's network {chosen.model} is now exported to another file; its samples are not "
                    "mixed with new ones: start over with bench profile --fresh",
                    code="export_changed",
                )
        plan, known = self.exported.plan, self.exported.files
        plan = replace(plan, models=(*plan.models, *networks))
        self.exported = replace(self.exported, plan=plan, files={**known, **files})
        self._left = max(self._left - len(networks), 0)
        return files

    def _network(self, chosen: ChosenModel) -> PlanModel:
        arch = arch_from_json(chosen.arch)
        blocks, space = arch.keys(), self.exported.plan.space
        if arch.space != space or model_id(blocks) != chosen.model or chosen.model in self.exported.files:
            raise InvalidArtifactError(
                f"the journal's network {chosen.model} can't be chosen in this profile; start over with --fresh",
                code="bad_choice",
            )
        return PlanModel(chosen.model, chosen.arch, blocks, "design")

    def _export(self, networks: Sequence[PlanModel]) -> dict[str, ModelFile]:
        specs = {network.model_id: self._variant.export_spec(network.blocks) for network in networks}
        files, _, reasons = exportable_files(self._variant, specs, self._workers, self._progress)
        unexported = {**self.exported.unexported, **reasons}
        self.exported = replace(self.exported, unexported=unexported)
        return files
