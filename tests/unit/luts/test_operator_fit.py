"""The fit of operators to whole programs, on devices whose costs of operators are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from luts.build import build_lut
from luts.estimate.operators import (
    LeftOut,
    _without,
    family_folds,
    family_of,
    fit_operators,
    learn,
    predicted,
    solve_rows,
)
from luts.estimate.sources import SourceEntries
from luts.format.lut import MODELS_FILE, Lut, decode, encode
from luts.format.operator_latency import (
    MAX_NAMED,
    OperatorCost,
    OperatorModel,
    OperatorPrediction,
    Operators,
    OperatorSource,
    extrapolated,
    traced_operators,
)
from luts.format.operators import parse_operator
from luts.format.schema import MeasuredModel, TransferSource
from luts.verify import verify_values
from tests.support.errors import raises
from tests.support.lut_world import model_spec
from tests.support.operator_world import (
    OperatorWorld,
    Program,
    measured,
    network,
    operator_study,
    programs,
)


def physics_ms(key: str, memory: float) -> float:
    return float(Operators.of([key], {"gemm": (1, 16)}).terms[0] @ [1, 1, 1, memory])


UNKNOWN = "portable.grid_sampler_2d(in=100000,out=100000)"


@pytest.fixture(scope="module")
def world() -> OperatorWorld:
    return OperatorWorld({"gemm": 16, "conv": 16, "depthwise": 16})


@pytest.fixture(scope="module")
def model(world: OperatorWorld) -> OperatorModel:
    return learn([measured(program, world) for program in programs(100, 24)])


@pytest.fixture(scope="module")
def lut() -> Lut:
    return operator_study().lut()


def log_errors(model: OperatorModel, world: OperatorWorld, wanted: list[Program]) -> np.ndarray:
    """Errors of logarithms, and in predicted standard deviations."""
    found = []
    for program in wanted:
        _, ms, log_sd = predicted(model, measured(program, world))
        error = np.log(ms / world.program_ms(program.blocks))
        found.append((error, error / np.sqrt(log_sd**2 - model.sds[1] ** 2)))
    return np.array(found).T


def test_new_networks_are_predicted_and_errors_are_as_large_as_predicted(model, world):
    """Operators stray 3 % from physics each, so that networks of tens of operators stray by about 1 %."""
    errors, standardised = log_errors(model, world, programs(0, 40, seed=5))
    assert np.abs(errors).mean() < 0.03
    assert 0.5 < np.sqrt((standardised**2).mean()) < 1.5


def test_tiles_are_found(model):
    assert model.tiles["gemm"][1] == model.tiles["conv"][1] == model.tiles["depthwise"][1] == 16


def test_other_tiles_are_found():
    world = OperatorWorld({"gemm": 32, "depthwise": 64})
    found = learn([measured(program, world, 0.003) for program in programs(100, 24)]).tiles
    assert (found["gemm"][1], found["depthwise"][1]) == (32, 64)


def test_a_single_operator_is_a_row_too(world):
    """Its cost is then known as well as it was measured; once it was not, as well as those alike."""
    key = "gemm(m=196,k=64,n=128)"
    known = [measured(program, world) for program in programs(30, 0)]
    alone = measured(Program("chain.gemm", "chain:one", (key,)), world, noise=0.001)
    single = OperatorModel.start([*known, alone], {}, np.array([0.05, 0.001, 0.7, 0.3]))
    _, ms, covariance = solve_rows(single, converged=1e-9).price([key, "gemm(m=196,k=64,n=120)"])
    assert ms[0] == pytest.approx(alone.ms, rel=0.004)
    assert covariance[0, 0] < 0.002**2
    assert covariance[1, 1] > 0.04**2


def traced(models: list[MeasuredModel], world: OperatorWorld, slower: float = 1.3) -> list[MeasuredModel]:
    """The same programs with a trace, by a clock of other milliseconds; nothing of the border."""
    return [
        each.model_copy(
            update={
                "operator_ms": tuple(
                    0.0 if key.startswith("border") else slower * world.operator_ms(key)
                    for key in each.blocks
                )
            }
        )
        for each in models
    ]


def test_traced_operators_are_scaled_to_the_programs_latency_and_averaged(world, monkeypatch):
    one, other = (Program("chain.gemm", f"chain:{name}", keys) for name, keys in (
        ("one", ("gemm(m=196,k=64,n=128)", "gelu(n=1000)")), ("other", ("gemm(m=196,k=64,n=128)",) * 2),
    ))  # fmt: skip
    first, second = (measured(each, world) for each in (one, other))
    first = first.model_copy(update={"ms": 4.0, "operator_ms": (30.0, 10.0)})
    second = second.model_copy(update={"ms": 2.0, "operator_ms": (5.0, 15.0)})
    found = traced_operators([first, second, measured(network(1, 1), world)])
    gemm = (3.0 * 0.5 * 1.5) ** (1 / 3)
    assert found == pytest.approx({"gemm(m=196,k=64,n=128)": gemm, "gelu(n=1000)": 1.0})
    tiny = second.model_copy(update={"operator_ms": (5e-324, 1e7)})
    assert traced_operators([tiny]) == pytest.approx({"gemm(m=196,k=64,n=128)": 2.0})
    monkeypatch.setattr("luts.format.operator_latency.TRACED_ROWS", 1)
    assert [*traced_operators([first, second])] == ["gemm(m=196,k=64,n=128)"]


def test_traces_take_a_third_off_the_error_of_few_networks(world):
    known = [measured(program, world, 0.003) for program in programs(12, 8, seed=3)]
    wanted = programs(0, 40, seed=5)
    without, with_traces = (
        np.abs(log_errors(learn(models), world, wanted)[0]).mean() for models in (known, traced(known, world))
    )
    assert with_traces < 0.67 * without


def test_what_was_traced_in_left_out_networks_alone_is_left_out_too(world):
    models = traced([measured(program, world) for program in programs(6, 6, seed=3)], world)
    known = models[:-1]
    part = _without(learn(models), known, ())
    rows = traced_operators(known)
    assert set(rows) < set(traced_operators(models))
    assert part.counts.shape[0] == len(part.log_ms) == len(part.variance) == len(known) + len(rows)
    np.testing.assert_allclose(np.exp(part.log_ms), [*(each.ms for each in known), *rows.values()])
    singles = part.counts[len(known) :].toarray()
    assert [part.operators.keys[at] for at in singles.argmax(axis=1)] == [*rows]
    assert (singles.sum(axis=1) == 1).all()


def test_a_lut_keeps_traces_and_learns_from_them(world):
    study = operator_study()
    plain = study.lut()
    specs = [
        spec.model_copy(update={"operator_ms": tuple(map(world.operator_ms, spec.blocks))})
        for spec in study.models
    ]
    lut = replace(study, models=tuple(specs)).lut()
    again = decode(encode(lut))
    verify_values(again)
    assert [model.operator_ms for model in again.models] == [model.operator_ms for model in lut.models]
    blocks = network(4, 9).blocks
    assert again.predict(blocks) == lut.predict(blocks) != plain.predict(blocks)
    assert b"operator_ms" not in encode(plain)[MODELS_FILE]


@pytest.mark.parametrize("times", [(1.0,), (0.0, 0.0), (1.0, -1.0)])
def test_a_trace_has_times_of_all_operators(times):
    spec = model_spec("one", ("gelu(n=1)", "gelu(n=2)"), "design")
    with pytest.raises(ValidationError):
        type(spec).model_validate({**dict(spec), "operator_ms": times})


def test_the_solution_is_stationary(model):
    """From another start the same, and the prices of known operators are those of the point."""
    again = solve_rows(replace(model, deviations=model.deviations + 1), converged=1e-9)
    np.testing.assert_allclose(again.deviations, model.deviations, atol=1e-8)
    _, prices, _ = model.price(model.operators.keys)
    expected = model.operators.terms.sum(axis=1) * np.exp(model.deviations)
    np.testing.assert_allclose(prices, expected, rtol=1e-7)


def test_the_prior_covariance_of_operators():
    """Term by term, for two of a kind, two kinds, and one outside of delegates."""
    keys = ["gemm(m=8,k=8,n=8)", "gemm(m=8,k=8,n=16)", "gelu(n=64)", "portable.gather(in=8,out=8)"]
    operators = Operators.of(keys, {"gemm": (1, 16)})
    entry, kind, shared = 0.05, 0.7, 0.3
    found = operators.covariance(operators, np.array([entry, 9.0, kind, shared]))
    own = 0.8**2 * (1 + operators.shares @ operators.shares.T)
    assert found[0, 2] == pytest.approx(own[0, 2])
    assert found[0, 3] == pytest.approx(0.8**2)
    assert found[3, 3] == pytest.approx(own[3, 3] + kind**2 + shared**2 + entry**2)
    moved = np.log(2) / 1.5 * np.sqrt(5)  # 8 columns padded to 16 are twice what is wanted, 16 as wanted
    distance = np.hypot(moved, 3 * moved)
    similar = (1 + distance + distance**2 / 3) * np.exp(-distance)
    assert found[0, 1] == pytest.approx(own[0, 1] + kind**2 + shared**2 * similar)


def test_uncertainty_is_the_posterior_of_the_linearised_rows(model):
    """Against the posterior of known and new operators together, all in one matrix."""
    keys = [*dict.fromkeys(network(3, 77).blocks)]
    both = Operators.of([*model.operators.keys, *keys], model.tiles)
    prior = both.covariance(both, model.sds)
    rows = np.hstack([model.by_entry.toarray(), np.zeros((len(model.log_ms), len(keys)))])
    noise = np.diag(model.variance + model.sds[1] ** 2)
    gain = prior @ rows.T @ np.linalg.inv(rows @ prior @ rows.T + noise)
    posterior = (prior - gain @ rows @ prior)[-len(keys) :, -len(keys) :]
    _, ms, covariance = model.price(keys)
    np.testing.assert_allclose(covariance, posterior, rtol=1e-6, atol=1e-9)
    mean = (gain @ model.residual)[-len(keys) :]
    np.testing.assert_allclose(np.log(ms), np.log(Operators.of(keys, model.tiles).terms.sum(axis=1)) + mean)


def test_prices_of_terms_are_found():
    """A device whose bytes cost ten times as much is known by its price of memory."""
    world = OperatorWorld({"gemm": 16})
    plain, slow = (
        learn([
            measured(program, world).model_copy(update={"ms": ms, "ci_low": ms * 0.99, "ci_high": ms * 1.01})
            for program in programs(100, 0)
            for ms in [float(sum(price(key) for key in program.blocks))]
        ]).term_prices[0]
        for price in (lambda key: physics_ms(key, 1), lambda key: physics_ms(key, 10))
    )  # fmt: skip
    assert slow[3] / plain[3] > 2 * slow[1] / plain[1]


def test_families_are_held_out_whole_and_once(world):
    models = [measured(program, world) for program in programs(10, 30, families=12)]
    masks = family_folds(models)
    times = np.sum(masks, axis=0)
    assert times.tolist() == [int(bool(family_of(model))) for model in models]
    for mask in masks:
        inside = {family_of(model) for model, held in zip(models, mask, strict=True) if held}
        assert inside.isdisjoint(
            family_of(model) for model, held in zip(models, mask, strict=True) if not held
        )


def test_intervals_reach_the_error_of_its_rank(world):
    """Of 24 networks the ceil(25 * 0.95) = 24th smallest error, the largest."""
    models = [measured(program, world) for program in programs(40, 24)]
    _, left_out, stored, _ = fit_operators(models)
    assert len(left_out.ms) == 24
    assert stored.basis == "conformal"
    assert stored.quantile_95 == pytest.approx(np.abs(left_out.standardised).max())
    _, _, few, _ = fit_operators(
        [model for model in models if family_of(model) not in {f"family{n}" for n in range(9)}]
    )
    assert few.basis == "posterior"
    assert few.quantile_95 > 1.96


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        ([0.0] * 10, 1.0),
        ([0.0] * 9 + [0.2], 0.9),
        ([0.0] * 8 + [0.2, 0.0], 1.0),
        ([0.0] * 7 + [0.2, 0.2, 0.0], 0.7),
        ([0.2] * 9 + [0.0], 0.0),
        ([], 0.0),
    ],
)
def test_extrapolated_is_what_lies_above_where_most_missed_10_percent(errors, line):
    """The i-th smallest deviation is i / 10; 0.7 has one of three above it within 10 %."""
    sd = np.arange(1, len(errors) + 1) / 10
    order = np.random.default_rng(0).permutation(len(errors))
    left_out = LeftOut(np.ones(len(errors)), 1 + np.array(errors)[order], sd[order])
    assert left_out.extrapolated_sd() == pytest.approx(line)


def test_a_lut_of_operators_survives_its_files_and_verification(lut):
    again = decode(encode(lut))
    verify_values(again)
    assert again.meta.operators == lut.meta.operators
    blocks = lut.models[5].blocks
    assert again.predict(blocks) == lut.predict(blocks)
    entry_ms = {entry.key: entry.ms for entry in again.entries}
    assert again.predict(blocks).ms == pytest.approx(sum(entry_ms[key] for key in blocks), rel=1e-6)


@pytest.fixture(scope="module")
def prices(model) -> dict[str, float]:
    """What a LUT of the world's device says of its operators."""
    _, ms, _ = model.price(model.operators.keys)
    return dict(zip(model.operators.keys, ms.tolist(), strict=True))


def as_source(prices: dict[str, float]) -> SourceEntries:
    return SourceEntries("other", prices, entry_se={key: ms / 50 for key, ms in prices.items()})


@pytest.mark.parametrize("known", [programs(20, 0, seed=3), programs(6, 4, seed=3)])
def test_another_device_takes_a_third_off_the_error_of_few_programs(known, prices):
    """It is 2.5 times faster, and has other tiles and faster memory."""
    slow = OperatorWorld({"gemm": 32, "conv": 8, "depthwise": 64}, slower=2.5, memory=2.0)
    rows, wanted = [measured(program, slow) for program in known], programs(0, 40, seed=5)
    scratch, transfer = (
        np.abs(log_errors(learn(rows, sources), slow, wanted)[0]).mean()
        for sources in ((), (as_source(prices),))
    )
    assert transfer < 0.65 * scratch
    assert transfer < 0.04


def test_what_a_source_knows_from_left_out_networks_alone_is_left_out_too():
    """Operators stray 30 %, and the source knows each exactly: also those that only one family has."""
    odd = OperatorWorld({}, stray=0.3)
    known = [measured(program, odd, 0.001) for program in programs(20, 8, families=8)]
    source = as_source({key: odd.operator_ms(key) for model in known for key in model.blocks})
    model, left_out, _, _ = fit_operators(known, [source])
    assert model.operators.sources
    family = [family_of(each) == "family0" for each in known]
    apart = {key for each, out in zip(known, family, strict=True) if out for key in each.blocks}
    apart -= {key for each, out in zip(known, family, strict=True) if not out for key in each.blocks}
    blind = as_source({key: ms for key, ms in source.entry_ms.items() if key not in apart})
    rest = [each for each, out in zip(known, family, strict=True) if not out]
    others = (OperatorSource.of(blind.entry_ms, blind.entry_se, model.tiles),)
    start = OperatorModel.start(rest, model.tiles, model.sds, others)
    expected = predicted(solve_rows(start), known[family.index(True)])
    at = int(np.flatnonzero(left_out.ms == expected[0])[0])
    assert left_out.predicted_ms[at] == pytest.approx(expected[1], rel=1e-3)
    assert left_out.log_sd[at] == pytest.approx(expected[2], rel=1e-3)
    assert np.abs(np.log(left_out.predicted_ms / left_out.ms)).mean() > 0.05
    seen = np.array([predicted(model, each)[:2] for each in known if family_of(each)])
    assert np.abs(np.log(seen[:, 1] / seen[:, 0])).mean() < 0.01


def test_a_lut_learned_from_another_stands_alone(prices):
    """It knows operators that only the source has, and predicts the same once it is read from its files."""
    study = operator_study(chains=10, networks=2)
    features = study.features | {key: parse_operator(key).features for key in prices}
    keys, rng = sorted(features), np.random.default_rng(0)
    found = {}
    shuffled = dict(zip(prices, rng.permutation([*prices.values()]), strict=True))
    for name, ms in (("alike", prices), ("shuffled", shuffled)):
        source = TransferSource(
            name=name, digest="0" * 64, measured="measured", base_ms=0, transfer_ms_per_mib=0,
            entry_ms=tuple(ms.get(key) for key in keys),
            entry_se=tuple(ms[key] / 50 if key in ms else None for key in keys),
        )  # fmt: skip
        inputs = study.inputs.model_copy(update={"sources": (source,)})
        built = build_lut(inputs, study.models, study.estimation, features)
        again = decode(encode(built))
        verify_values(again)
        only_there = {entry.key: entry for entry in again.entries}[next(iter(prices))]
        assert built.operator_model is not None
        _, ms_there, _ = built.operator_model.price([only_there.key])
        assert only_there.ms == pytest.approx(ms_there[0], rel=1e-6)
        blocks = network(5, 11).blocks
        assert again.predict(blocks).ms == pytest.approx(built.predict(blocks).ms, rel=1e-9)
        found[name] = again
    assert found["alike"].meta.dropped_sources == {}
    assert found["shuffled"].meta.dropped_sources["shuffled"] > -2


def test_entries_of_operators_that_no_program_has_are_priors(lut):
    held = {key for model in lut.models for key in model.blocks}
    by_method = {entry.key: entry.method for entry in lut.entries}
    assert {key for key, method in by_method.items() if method == "prior"} == {*by_method} - held
    assert len({*by_method} - held) > 20
    for entry in lut.entries:
        assert entry.ci_low < entry.ms < entry.ci_high


def test_a_network_of_unknown_operators_is_extrapolated_by_name(lut):
    known = lut.predict(lut.models[-1].blocks)
    assert isinstance(known, OperatorPrediction)
    assert not known.weak_keys
    found = lut.predict([*network(2, 11).blocks, UNKNOWN])
    assert isinstance(found, OperatorPrediction)
    assert found.weak_keys[0] == UNKNOWN
    assert len(found.weak_keys) <= MAX_NAMED
    assert found.high / found.ms > known.high / known.ms
    assert sum(each.ms for each in found.operators) == pytest.approx(found.ms)
    for each in found.operators:
        assert each.call + each.arithmetic + each.memory == pytest.approx(1.0)


def test_the_deviation_of_a_network_has_the_misfit_in_it(lut):
    blocks = network(2, 11).blocks
    found, model = lut.predict(blocks), lut.operator_model
    _, _, parts, _ = model.price_network(blocks)
    assert found.log_sd**2 == pytest.approx(parts.sum() + model.sds[1] ** 2)
    assert model.sds[1] ** 2 > 1e-3 * parts.sum()


@pytest.mark.parametrize(
    ("share", "named"), [(0.0, 0), (0.2, 1), (0.6, 2), (0.99, 5), (5.0, MAX_NAMED)], ids=str
)
def test_operators_are_named_until_they_explain_what_is_above_the_line(lut, share, named):
    """Of uncertainties of a half, a quarter and so on; the line is at the rest of the variance."""
    keys = list(dict.fromkeys(network(2, 11).blocks))[:8]
    costs = [OperatorCost(key, 1, 1.0, 1.0, 0.0, 0.0, 0.5 ** (at + 1)) for at, key in enumerate(keys)]
    assert extrapolated(costs[::-1], share) == tuple(keys[:named])


def test_errors_are_in_deviations_with_the_floor():
    """A deviation of 4 % and the floor of 3 % make 5 %."""
    left_out = LeftOut(np.array([1.0]), np.exp([-0.05]), np.array([0.04]))
    assert left_out.standardised == pytest.approx([1.0])


def test_order_and_repetition_of_operators(lut):
    blocks = network(1, 3).blocks
    once, twice = lut.predict(blocks), lut.predict([*reversed(blocks), *blocks])
    assert twice.ms == pytest.approx(2 * once.ms)


def test_short_runs_move_whole_cache_lines():
    """A copy of runs of 4 bytes writes 64 for each: (1 + 16) / 2 times the traffic."""
    long, short = Operators.of(["copy(n=4096,run=16)", "copy(n=4096,run=1)"], {}).amounts
    assert long[3] == pytest.approx(8 * 4096 / 2**20)
    assert short[3] == pytest.approx(8.5 * long[3])


def test_macs_are_padded_to_tiles():
    """10 x 20 outputs in tiles of 8 x 16 compute 16 x 32."""
    plain = Operators.of(["gemm(m=10,k=3,n=20)"], {})
    padded = Operators.of(["gemm(m=10,k=3,n=20)"], {"gemm": (8, 16)})
    assert padded.terms[0, 1] == pytest.approx(16 * 3 * 32 / 1e6 / 60)
    assert padded.terms[0, 1] / plain.terms[0, 1] == pytest.approx(16 * 32 / (10 * 20))
    assert padded.terms[0, 3] == plain.terms[0, 3]


def test_what_no_lut_of_operators_can_be_is_refused(world):
    program = measured(programs(1, 0)[0], world)
    with raises("invalid_operator_key"):
        learn([program.model_copy(update={"blocks": ("mbconv(in=3)@8",)})])
    with raises("too_many_operators"):
        learn([program] * 1001)
    for arch in ("", "[]", "[" * 10_000, json.dumps({"program": "timm:x"})):
        with raises("invalid_program"):
            family_of(program.model_copy(update={"arch": arch}))


def test_a_program_without_its_entry_is_refused(lut):
    with raises("missing_entry"):
        _ = replace(lut, entries=lut.entries[:3]).operator_model
