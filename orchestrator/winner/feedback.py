"""Feedback: measurements of a search's best networks become part of the LUT's next version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from luts.build import build_lut, estimates_of
from luts.format.errors import UsageError
from luts.format.lut import SAMPLES_SCHEMA, Lut
from luts.format.schema import LutInputs, ModelSpec
from orchestrator.journal.conditions import read_conditions
from orchestrator.journal.log import policy_in_effect, read_log, samples_table, self_test_decision
from orchestrator.journal.records import Header, Identity, Record
from orchestrator.plan.plan import model_id
from search.spaces import Arch

_UNDECIDING = ("seed", "fed_from", "company", "self_test", "heldout_half_width", "calls")
"""Entries of a LUT's policy that do not decide how it was measured."""

_DECIDED = ("settle_runs", "batch_models", "keep_warm")
"""Entries that a self-test decides; a busy machine may need more settle runs."""


def with_feedback(lut: Lut, lut_digest: str, journal: Path, reference: str, archs: Sequence[Arch]) -> Lut:
    """Return the LUT with the samples of a later measurement as further batches, estimated again.

    Both are ratios to one reference, so the new models join the fit as design rows. A model that the LUT has
    already keeps its own samples, since its weights differ.

    Args:
        lut: The LUT; its own version does not change.
        lut_digest: sha256 of its lut.json, which the new version's policy names as `fed_from`.
        journal: Journal of a measurement of `archs` with the LUT's reference.
        reference: The reference's id in the journal.
        archs: Measured architectures; those that the LUT has are left out.

    Raises:
        UsageError: the journal is of another device, system, runtime, agent, policy or reference than the LUT,
            or no model in it is new.
        InvalidArtifactError: the journal is damaged.
    """
    records = read_log(journal)
    header = records[0]
    assert isinstance(header, Header)
    _check_same_conditions(lut, records, reference)
    measured = {model.model_id for model in lut.models}
    fresh = {name: arch for arch in archs if (name := model_id(arch.keys())) not in measured}
    if not fresh:
        raise UsageError(
            "the LUT has all measured models already, so there is nothing to add; leave --feedback out",
            code="nothing_to_feed_back",
        )
    ids = {reference: lut.meta.reference_id} | {name: name for name in fresh}
    samples = pa.concat_tables([lut.samples, _further_batches(lut, records, ids)])
    return build_lut(
        _inputs(lut, lut_digest, records),
        [*map(ModelSpec.of, lut.models), *(_design_row(arch, header.identity) for arch in fresh.values())],
        estimates_of(lut, samples),
        {entry.key: entry.features for entry in lut.entries},
    )


def _check_same_conditions(lut: Lut, records: Sequence[Record], reference: str) -> None:
    header = records[0]
    assert isinstance(header, Header)
    identity, meta = header.identity, lut.meta
    measured_by = policy_in_effect(header, self_test_decision(records))
    both_decided = "company" in meta.policy and "company" in measured_by
    ignored = _UNDECIDING + (_DECIDED if both_decided else ())
    before = {name: value for name, value in meta.policy.items() if name not in ignored}
    pairs = {
        "device": (meta.device.model, identity.device_model),
        "SoC": (meta.device.soc, identity.soc),
        "OS": (meta.device.os, identity.os),
        "OS build": (meta.device.os_build, identity.os_build),
        "agent": (meta.versions.agent, identity.agent),
        "runtime": (meta.versions.runtime, identity.runtime),
        "variant": (meta.variant, identity.variant),
        "fixed performance mode": (meta.fixed_performance, identity.fixed_performance),
        "policy": (before, {name: measured_by.get(name) for name in before}),
        "kind of numbers": (meta.measured, "simulated" if header.simulated else "measured"),
        "reference's bytes": (lut.reference.artifact_sha256, identity.artifacts.get(reference)),
    }
    changed = [
        f"{name} ({before} is now {now})" if isinstance(before, str) else name
        for name, (before, now) in pairs.items()
        if before != now
    ]
    if changed:
        raise UsageError(
            f"the measurements cannot become part of the LUT: other {'; other '.join(changed)}; "
            "profile again with bench profile",
            code="other_conditions",
        )


def _further_batches(lut: Lut, records: Sequence[Record], ids: Mapping[str, str]) -> pa.Table:
    """Return the journal's samples of `ids`, renamed, with batch numbers that continue the LUT's."""
    table = samples_table(records)
    names = table.column("model").cast(pa.string())
    wanted = pc.is_in(names, value_set=pa.array(list(ids)))
    table, names = table.filter(wanted), names.filter(wanted)
    first = pc.max(lut.samples.column("batch")).as_py() + 1
    columns = {name: table.column(name) for name in SAMPLES_SCHEMA.names}
    columns["model"] = pa.array([ids[name] for name in names.to_pylist()]).dictionary_encode()
    columns["batch"] = pc.add(table.column("batch"), pa.scalar(first, pa.int32()))
    return pa.table(columns).cast(SAMPLES_SCHEMA)


def _inputs(lut: Lut, lut_digest: str, records: Sequence[Record]) -> LutInputs:
    header, meta = records[0], lut.meta
    assert isinstance(header, Header)
    return LutInputs(
        **dict(LutInputs.of(meta))
        | {
            "policy": {**meta.policy, "fed_from": lut_digest},
            "created": header.created,
        }
        | asdict(read_conditions(records).merge(meta))
    )


def _design_row(arch: Arch, identity: Identity) -> ModelSpec:
    name = model_id(arch.keys())
    return ModelSpec(
        model_id=name,
        arch=arch.to_json(),
        blocks=arch.keys(),
        boundary_bytes=arch.boundary_bytes(),
        artifact_sha256=identity.artifacts[name],
        split="fit",
        role="design",
    )
