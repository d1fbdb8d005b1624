"""From a plan of models and their measurement to a LUT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luts.build import build_lut, fit_so_far, prediction_half_width
from luts.estimate.latencies import LatencyEstimates, SegmentId
from luts.estimate.sources import SourceEntries
from luts.format.lut import Lut
from luts.format.schema import MAX_REASON, DeviceInfo, LutInputs, ModelSpec, UnitSegments, Versions
from orchestrator.export.artifacts.spec import Variant, toolchain
from orchestrator.journal.conditions import Usage, migrated_operations
from orchestrator.journal.records import PlacedType
from orchestrator.measure.engine import ModelSet, PredictionHalfWidth
from orchestrator.measure.session import Measurement
from orchestrator.plan.plan import Plan, PlanModel, features_of_plan
from orchestrator.tasks.sources import Sources
from orchestrator.wire.client import ModelFile
from search.blocks import boundary_bytes, parse_keys


def subject_of(plan: Plan, files: Mapping[str, ModelFile]) -> ModelSet:
    """Return the models that a profile measures: all of the plan."""
    return ModelSet(files, plan.reference.model_id, plan.digest, plan.seed)


def exporter_version(variant: Variant) -> str:
    """Return name and version of the tools that made the model files."""
    if variant.is_simulated:
        return "none, simulated models are lists of blocks"
    versions = toolchain()
    return f"torch {versions['torch']}, executorch {versions['executorch']}, coremltools {versions['coremltools']}"


def lut_of(
    plan: Plan,
    files: Mapping[str, ModelFile],
    measurement: Measurement,
    device_name: str,
    unexported: Mapping[str, str] | None = None,
    exporter: str = "",
    sources: Sources | None = None,
) -> Lut:
    """Make a LUT of a plan's measurement, with the models that were not exported or failed on the device.

    `exporter` is what made the files, where that was not this installation.

    Keys of the space that no model holds are in it too, resting on the physical prior alone and saying so.
    """
    hello, header, seen = measurement.hello, measurement.header, measurement.conditions
    features = features_of_plan(plan)
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
        space=plan.space,
        space_hash=plan.space_digest,
        variant=header.identity.variant,
        policy={**measurement.policy, "seed": plan.seed},
        reference_id=header.reference_id,
        created=header.created,
        measured="simulated" if header.simulated else "measured",
        failures={
            name: reason[:MAX_REASON]
            for name, reason in {**(unexported or {}), **measurement.failures}.items()
        },
        caveats=tuple(sorted(seen.caveats)),
        qos=tuple(sorted(seen.qos)),
        keep_warm=seen.warmth,
        fixed_performance=header.identity.fixed_performance,
        sustained_performance=seen.sustained,
        cores=tuple(sorted(seen.cores)),
        input_buffers=tuple(sorted(seen.input_buffers)),
        units=_units(measurement.estimation),
        reference_usage=_usage_fields(measurement.usages.get(header.reference_id)),
        sources=sources.stored_for(features) if sources else (),
    )
    able = [model for model in plan.models if model.model_id not in measurement.failures]
    placed = measurement.placements
    models = [_model_spec(model, files[model.model_id], measurement.failures, placed) for model in able]
    valid = measurement.estimation.without(measurement.failures)
    return build_lut(inputs, models, valid, features)


def space_keys(plan: Plan) -> list[str]:
    """Blocks that the plan's LUT will hold, in order."""
    return sorted(features_of_plan(plan))


def _units(estimation: LatencyEstimates) -> tuple[UnitSegments, ...]:
    places: dict[str, list[SegmentId]] = {}
    for segment in estimation.segments:
        place = segment.batch, segment.segment
        if place in estimation.unit_of:
            places.setdefault(estimation.unit_of[place], []).append(place)
    return tuple(UnitSegments(unit=unit, sessions=tuple(places[unit])) for unit in sorted(places))


def _usage_fields(usage: Usage | None) -> dict[str, float]:
    columns = usage.columns() if usage else {}
    return {name: value for name, value in columns.items() if value is not None}


def _model_spec(
    model: PlanModel,
    file: ModelFile,
    failures: Mapping[str, str],
    placed: Mapping[str, Sequence[PlacedType]],
) -> ModelSpec:
    """Describe a planned model for the estimation; a removal whose base failed counts as a design model."""
    alone = model.base_id in failures
    known = model.role == "removal" and not alone and model.base_id in placed and model.model_id in placed
    return ModelSpec(
        model_id=model.model_id,
        arch=model.arch,
        blocks=model.blocks,
        boundary_bytes=boundary_bytes(parse_keys(model.blocks)),
        artifact_sha256=file.sha256,
        split="heldout" if model.role == "heldout" else "fit",
        role="design" if alone else model.role,
        base_id="" if alone else model.base_id,
        removed_key="" if alone else model.removed_key,
        migrated_operations=migrated_operations(placed[model.base_id], placed[model.model_id])
        if known
        else None,
    )


def prediction_width_of(
    plan: Plan, files: Mapping[str, ModelFile], sources: Sources | None = None
) -> PredictionHalfWidth:
    """How narrow predictions of held-out models are, for stopping early; placements are not looked at."""
    models = [_model_spec(model, files[model.model_id], {}, {}) for model in plan.models]
    features = features_of_plan(plan)
    priors = sources.priors() if sources else ()

    def width(estimation: LatencyEstimates) -> float | None:
        return prediction_half_width(models, estimation, features, priors)

    return width


def sources_that_fit(
    plan: Plan, files: Mapping[str, ModelFile], sources: Sources, estimation: LatencyEstimates
) -> tuple[SourceEntries, ...]:
    """Those that the samples so far do not contradict."""
    models = [_model_spec(model, files[model.model_id], {}, {}) for model in plan.models]
    return fit_so_far(models, estimation, features_of_plan(plan), sources.priors())[1].sources


def run_label(device_name: str, plan: Plan, variant: Variant, pace_us: int = 0) -> str:
    """Name of a profile's runs, those at one pace."""
    paced = f"-every{pace_us}us" if pace_us else ""
    return f"{device_name}-{plan.space}-{variant.name}-{plan.digest[:8]}{paced}"
