from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from luts.build import build_lut, prediction_half_width
from luts.estimate.joint import fit_entries
from luts.estimate.latencies import LatencyEstimates, block_removals
from luts.estimate.likelihood import FitData
from luts.format.lut import MAX_SAMPLE_NS, Lut, encode, normalise_samples
from luts.format.schema import Conformal, KeyFeatures, ModelSpec
from tests.support.errors import raises
from tests.support.lut_world import Study, make_study, make_world, model_spec


@pytest.fixture(scope="module")
def study() -> Study:
    generator = np.random.default_rng(0)
    return make_study(generator, make_world(generator), designs=10, heldout=9, removals=2, rounds=8)


def built(study: Study, samples: pa.Table | None = None) -> Lut:
    return built_of(study, study.models, study.samples if samples is None else samples, study.features)


def built_of(
    study: Study, models: Sequence[ModelSpec], samples: pa.Table, features: Mapping[str, KeyFeatures]
) -> Lut:
    return build_lut(study.inputs, models, LatencyEstimates.of(samples, study.inputs.reference_id), features)


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_order_of_samples_does_not_matter(study: Study) -> None:
    shuffled = study.samples.take(np.random.default_rng(1).permutation(study.samples.num_rows))
    again = built_of(study, study.models[::-1], shuffled, dict(reversed(list(study.features.items()))))
    assert encode(again) == encode(built(study))


def test_models_are_in_milliseconds_of_the_reference(study: Study) -> None:
    lut = built(study)
    scale = lut.meta.reference_ms / study.truth_ms["reference"]
    for model in lut.models:
        assert model.ms == pytest.approx(study.truth_ms[model.model_id] * scale, rel=0.03)
        assert model.ci_low <= model.ms <= model.ci_high
    reference = next(model for model in lut.models if model.role == "reference")
    assert reference.ms == lut.meta.reference_ms


def test_intervals_of_models_are_those_of_their_ratios(study: Study) -> None:
    """The reference's own uncertainty is not in them: predictions are compared with ratios."""
    lut, estimates = built(study), LatencyEstimates.of(study.samples, study.inputs.reference_id)
    for model in lut.models:
        ratio = estimates.ratios[model.model_id]
        factors = np.exp([ratio.low - ratio.log_ratio, ratio.high - ratio.log_ratio])
        assert (model.ci_low / model.ms, model.ci_high / model.ms) == pytest.approx(tuple(factors))


def test_entries_are_the_fit_of_rows_that_share_a_reference(study: Study) -> None:
    lut, estimates = built(study), LatencyEstimates.of(study.samples, study.inputs.reference_id)
    fitted = [model for model in lut.models if model.fitted]
    rows = [list(estimates.ratios).index(model.model_id) for model in fitted]
    fit = fit_entries(FitData.of(fitted, estimates.covariance[np.ix_(rows, rows)]), study.features)
    expected = {
        key: (ms, *estimates.quiet.widen(ms, ms - 1.959964 * se, ms + 1.959964 * se))
        for key, ms, se in zip(fit.keys, fit.ms.tolist(), fit.se.tolist(), strict=True)
    }
    for entry in lut.entries:
        ms, low, high = expected[entry.key]
        assert (entry.ms, entry.ci_low, entry.ci_high) == pytest.approx((ms, max(low, 0.0), high), rel=1e-6)


def test_removals_are_in_milliseconds(study: Study) -> None:
    lut, estimates = built(study), LatencyEstimates.of(study.samples, study.inputs.reference_id)
    removals = block_removals(study.models, estimates)
    assert removals
    for entry in lut.entries:
        cost = removals.get(entry.key)
        expected = None if cost is None else pytest.approx(cost.ms * lut.meta.reference_ms)
        assert entry.removal_ms == expected


def test_loads_and_rounds_are_counted(study: Study) -> None:
    lut = built(study)
    design = next(model for model in lut.models if model.role == "design")
    assert (design.loads, design.rounds) == (3, 24)
    entry = lut.entries[0]
    holders = [model for model in lut.models if model.split == "fit" and entry.key in model.blocks]
    assert entry.loads == sum(model.loads for model in holders)


def test_held_out_models_are_never_fitted(study: Study) -> None:
    heldout = pc.starts_with(study.samples.column("model"), "heldout")
    slower = pc.if_else(heldout, pc.multiply(study.samples.column("ns"), 3), study.samples.column("ns"))
    one, other = built(study), built(study, with_column(study.samples, "ns", slower))
    for entry, changed in zip(one.entries, other.entries, strict=True):
        assert entry.ms == pytest.approx(changed.ms, rel=0.02)
    assert other.meta.heldout_error is not None
    assert other.meta.heldout_error.mape == pytest.approx(2 / 3, rel=0.05)


def test_key_without_models_is_a_prior(study: Study) -> None:
    extra = KeyFeatures(kind="conv", macs=20_000_000, traffic_bytes=2**20)
    lut = build_lut(study.inputs, study.models, study.estimation, {**study.features, "conv(new)@8": extra})
    entry = next(entry for entry in lut.entries if entry.key == "conv(new)@8")
    assert entry.method == "prior"
    assert (entry.loads, entry.rounds) == (0, 0)
    assert entry.ci_low < entry.ms < entry.ci_high
    held = {key for model in lut.models if model.split == "fit" for key in model.blocks}
    assert {entry.key for entry in lut.entries if entry.method == "design"} == held


@pytest.mark.parametrize(("heldout", "rank"), [(9, 9), (18, 18), (19, 19), (40, 39)])
def test_half_width_is_the_error_of_its_rank(heldout: int, rank: int) -> None:
    """At 90 % the ceil(0.9 (n + 1))-th of n errors, from nineteen on at 95 % the ceil(0.95 (n + 1))-th."""
    generator = np.random.default_rng(4)
    world = make_world(generator, slots=3)
    study = make_study(generator, world, designs=8, heldout=heldout, segments=1, rounds=5, misfit_sd=0.05)
    lut = built(study)
    held = [model for model in lut.models if model.split == "heldout"]
    errors = []
    for model in held:
        predicted = lut.meta.base_ms + sum(entry.ms * model.blocks.count(entry.key) for entry in lut.entries)
        predicted += lut.meta.transfer_ms_per_mib * model.boundary_bytes / 2**20
        errors.append(abs(model.ms - predicted) / predicted)
    width = prediction_half_width(study.models, study.estimation, study.features)
    assert width == pytest.approx(sorted(errors)[rank - 1])
    conformal = lut.meta.conformal
    assert width == (conformal.half_width_90 if conformal.half_width_95 is None else conformal.half_width_95)
    assert len(set(errors)) == heldout


@pytest.mark.parametrize(
    ("at_90", "at_95", "posterior", "width"),
    [
        (0.01, 0.03, 0.02, 0.03),
        (0.01, None, 0.02, 0.02),
        (0.01, None, None, 0.01),
        (None, None, None, None),
    ],
)
def test_width_at_95_percent_precedes_that_at_90(
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    at_90: float | None,
    at_95: float | None,
    posterior: float | None,
    width: float | None,
) -> None:
    """The conformal width needs 19 networks at 95 %; then the posterior's, which needs sources; then 90 %."""
    widths = Conformal(half_width_90=at_90, half_width_95=at_95, posterior_half_width_95=posterior)
    monkeypatch.setattr("luts.build._widths", lambda *_: widths)
    assert prediction_half_width(study.models, study.estimation, study.features) == width


def test_identified_entries_are_marked(study: Study) -> None:
    known = {entry.key: entry.identified for entry in built(study).entries}
    removed = {model.removed_key for model in study.models if model.role == "removal"}
    assert removed
    assert {known[key] for key in removed} == {"alone"}
    assert "sum" in known.values()


def with_removal(study: Study, **change: Any) -> list[ModelSpec]:
    """Return the models, with these fields of all removals changed."""
    return [
        model_spec(
            spec.model_id,
            spec.blocks,
            "removal",
            **{"base_id": spec.base_id, "removed_key": spec.removed_key, **change},
        )
        if spec.role == "removal"
        else spec
        for spec in study.models
    ]


CONTRADICTIONS: dict[str, tuple[Callable[[Study], dict[str, Any]], str]] = {
    "model twice": (lambda s: {"models": (*s.models, s.models[1])}, "duplicate_model"),
    "no reference": (lambda s: {"models": s.models[1:]}, "wrong_reference"),
    "sample of no model": (lambda s: {"models": s.models[:-1]}, "unknown_model"),
    "model without samples": (
        lambda s: {"models": (*s.models, model_spec("ghost", s.models[0].blocks, "design"))},
        "no_usable_load",
    ),
    "block without features": (
        lambda s: {"features": dict(list(s.features.items())[1:])},
        "missing_features",
    ),
    "two copies of every model": (
        lambda s: {
            "samples": with_column(s.samples, "copy", pa.array(np.ones(s.samples.num_rows, dtype=np.int8)))
        },
        "wrong_second_copy",
    ),
    "another removed block": (
        lambda s: {"models": with_removal(s, removed_key="other(1)@8")},
        "wrong_role",
    ),
    "unknown base": (lambda s: {"models": with_removal(s, base_id="nobody")}, "unknown_model"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradiction_is_refused(study: Study, case: str) -> None:
    change, code = CONTRADICTIONS[case]
    given = {"models": study.models, "samples": study.samples, "features": study.features} | change(study)
    with raises(code):
        built_of(study, **given)


@pytest.mark.parametrize(
    ("name", "value"), [("ns", 0), ("ns", MAX_SAMPLE_NS + 1), ("copy", 2), ("ns", None), ("batch", "x")]
)
def test_invalid_sample_is_refused(study: Study, name: str, value: int | str | None) -> None:
    values = study.samples.column(name).to_pylist()
    values[7] = value
    column = pa.array([str(each) for each in values] if isinstance(value, str) else values)
    for table in (with_column(study.samples, name, column), study.samples.drop_columns([name])):
        with raises("invalid_samples"):
            normalise_samples(table)


def test_name_beyond_the_dictionary_is_refused(study: Study) -> None:
    codes = study.samples.column("model").combine_chunks().dictionary_encode().indices.to_numpy().copy()
    codes[7] = 99
    names = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(["a", "b"]), safe=False)
    with raises("invalid_samples"):
        normalise_samples(with_column(study.samples, "model", names))


def migrating(study: Study, migrated: Mapping[str, int | None]) -> Study:
    """The study with so many operations that some of its removals made migrate."""
    return replace(
        study,
        models=tuple(
            spec.model_copy(update={"migrated_operations": migrated.get(spec.model_id)})
            for spec in study.models
        ),
    )


def test_removal_without_migrations_counts(study: Study) -> None:
    plain, placed = built(study), built(migrating(study, {"removal0": 0, "removal1": 0}))
    assert [entry.migrated_operations for entry in placed.entries if entry.removal_ms is not None] == [0, 0]
    assert {entry.migrated_operations for entry in plain.entries} == {None}
    assert (
        tuple(entry.model_copy(update={"migrated_operations": None}) for entry in placed.entries)
        == plain.entries
    )
    assert placed.meta == plain.meta


def test_removal_with_migrations_changes_no_other_entry(study: Study) -> None:
    """Its latency is multiplied by three, as if all that is left ran on a slower unit."""
    slow = pc.if_else(
        pc.equal(study.samples.column("model"), "removal0"),
        pc.multiply(study.samples.column("ns"), 3),
        study.samples.column("ns"),
    )
    spec = next(spec for spec in study.models if spec.model_id == "removal0")
    without = replace(
        study,
        models=tuple(one for one in study.models if one is not spec),
        samples=study.samples.filter(pc.not_equal(study.samples.column("model"), "removal0")),
    )
    flagged = built(migrating(study, {"removal0": 7}), with_column(study.samples, "ns", slow))
    expected = {entry.key: entry for entry in built(without).entries}
    for entry in flagged.entries:
        assert entry.ms == pytest.approx(expected[entry.key].ms, rel=0.02, abs=0.002)
    entry = next(entry for entry in flagged.entries if entry.key == spec.removed_key)
    assert entry.migrated_operations == 7
    assert entry.removal_ms is not None
    assert entry.removal_ms < 0
    assert entry.loads == expected[spec.removed_key].loads
    biased = {entry.key: entry.ms for entry in built(study, with_column(study.samples, "ns", slow)).entries}
    assert max(abs(biased[key] / entry.ms - 1) for key, entry in expected.items() if entry.ms > 0.05) > 0.1


def test_removals_without_migrations_are_preferred(study: Study) -> None:
    first = next(spec for spec in study.models if spec.model_id == "removal0")
    design = next(spec for spec in study.models if spec.role == "design" and first.removed_key in spec.blocks)
    blocks = list(design.blocks)
    blocks.remove(first.removed_key)
    second = model_spec("second", blocks, "removal", base_id=design.model_id, removed_key=first.removed_key)
    both = replace(
        study,
        models=(*study.models, second),
        samples=_renamed_copy(study.samples, "removal1", "second"),
    )
    entries = {}
    for migrated in ({"removal0": 3}, {"removal0": 3, "second": 0}, {"removal0": 3, "second": 5}):
        lut = built(migrating(both, migrated))
        entries[str(migrated)] = next(entry for entry in lut.entries if entry.key == first.removed_key)
    unknown, clean, both_migrated = entries.values()
    operations = [entry.migrated_operations for entry in (unknown, clean, both_migrated)]
    assert operations == [None, 0, 5]
    assert unknown.removal_ms == clean.removal_ms != both_migrated.removal_ms


def _renamed_copy(samples: pa.Table, name: str, new_name: str) -> pa.Table:
    """All samples, and those of one model once more under another name, in batches of their own."""
    batches = samples.filter(pc.equal(samples.column("model"), name)).column("batch").unique()
    wanted = pc.is_in(samples.column("batch"), value_set=batches)
    again = samples.filter(wanted)
    names = again.column("model").to_pylist()
    again = with_column(again, "model", pa.array([new_name if one == name else one for one in names]))
    first = pc.max(samples.column("batch")).as_py() + 1
    return pa.concat_tables([samples, with_column(again, "batch", pc.add(again.column("batch"), first))])
