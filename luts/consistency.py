"""Do the parts that a LUT is built from belong together?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow.compute as pc

from luts.estimate.estimation import Estimation
from luts.format.errors import InvalidArtifactError
from luts.format.messages import few
from luts.format.schema import KeyFeatures, LutInputs, ModelSpec
from luts.format.values import MAX_ENTRIES, MAX_MODELS


def check_parts(
    inputs: LutInputs, specs: Sequence[ModelSpec], estimation: Estimation, features: Mapping[str, KeyFeatures]
) -> None:
    """Models, samples and features, before anything is computed from them.

    Raises:
        InvalidArtifactError: they contradict each other, or a model has no usable load.
    """
    samples = estimation.samples
    if not 0 < len(specs) <= MAX_MODELS or not 0 < len(features) <= MAX_ENTRIES:
        raise InvalidArtifactError(
            f"{len(specs)} models, {len(features)} keys; from 1 to {MAX_MODELS} and {MAX_ENTRIES} are allowed"
        )
    by_id = {spec.model_id: spec for spec in specs}
    if len(by_id) != len(specs):
        repeated = [name for name, times in Counter(spec.model_id for spec in specs).items() if times > 1]
        raise InvalidArtifactError(f"models named twice: {few(sorted(repeated))}; give each once")
    if estimation.reference_id != inputs.reference_id:
        raise InvalidArtifactError(
            f"ratios to {estimation.reference_id}, but reference {inputs.reference_id}; estimate them anew"
        )
    reference = by_id.get(inputs.reference_id)
    if reference is None or reference.role != "reference":
        raise InvalidArtifactError(f"reference {inputs.reference_id} is not a model with role reference")
    foreign = set(samples.column("model").unique().to_pylist()) - set(by_id)
    if foreign:
        raise InvalidArtifactError(f"samples of unknown models {few(sorted(foreign))}; list them")
    second = samples.filter(pc.equal(samples.column("copy"), 1)).column("model").unique().to_pylist()
    if set(second) - {inputs.reference_id}:
        raise InvalidArtifactError(f"second copies of {few(sorted(second))}; only the reference has one")
    bare = sorted({key for spec in specs for key in spec.blocks} - set(features))
    if bare:
        raise InvalidArtifactError(
            f"no features for block {bare[0]} ({len(bare)} in all); give them to the build"
        )
    for spec in specs:
        if spec.role in ("removal", "swap"):
            _check_pair(spec, by_id.get(spec.base_id))
    silent = [spec.model_id for spec in specs if spec.model_id not in estimation.ratios.ratios]
    if silent:
        raise InvalidArtifactError(f"no usable load of {few(silent)}; measure them again or leave them out")


def _check_pair(spec: ModelSpec, base: ModelSpec | None) -> None:
    if base is None:
        raise InvalidArtifactError(
            f"{spec.role} {spec.model_id} names base {spec.base_id}, which is not measured"
        )
    if spec.role == "swap":
        if spec.blocks.count(spec.removed_key) >= base.blocks.count(spec.removed_key):
            raise InvalidArtifactError(
                f"swap {spec.model_id} holds no fewer {spec.removed_key} than {spec.base_id}; give it role design"
            )
        return
    missing = Counter(base.blocks)
    missing.subtract(spec.blocks)
    if {key: times for key, times in missing.items() if times} != {spec.removed_key: 1}:
        raise InvalidArtifactError(
            f"removal {spec.model_id} is not {spec.base_id} without one {spec.removed_key}; "
            "give it role swap or design"
        )
