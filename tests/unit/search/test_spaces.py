"""Spaces: the paper's networks, exact sizes, and every operation staying inside."""

import itertools
import json
import random
from collections import Counter

import pytest
import torch

from search.networks import build_network
from search.spaces import Space, Stage, get_arch, get_space, list_archs, list_spaces, load_arch
from search.spaces.registry import arch_from_json
from tests.support.errors import raises

SPACES = [space.name for space in list_spaces()]


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("autovit-xxs-paper", 1.816e6, 0.309e9),
        ("autovit-xs-paper", 2.507e6, 0.750e9),
        ("autovit-s-paper", 6.291e6, 1.397e9),
    ],
)
def test_networks_of_table_3(name, params, macs):
    arch = get_arch(name)
    assert round(arch.params() / 1e6, 3) == params / 1e6
    assert round(arch.macs().conv_linear / 1e9, 3) == macs / 1e9
    with torch.device("meta"):
        network = build_network(arch.blocks())
    assert sum(p.numel() for p in network.parameters()) == arch.params()


@pytest.mark.parametrize("name", SPACES)
def test_parameters_agree_with_built_networks(name):
    rng = random.Random(1)
    for _ in range(5):
        arch = get_space(name).sample(rng)
        with torch.device("meta"):
            network = build_network(arch.blocks())
        assert sum(p.numel() for p in network.parameters()) == arch.params(), arch.to_json()


def test_a_network_of_every_resolution_runs():
    for resolution in get_space("autovit-xxs").resolutions:
        network = build_network(get_arch("autovit-xxs-paper").with_resolution(resolution).blocks()).eval()
        with torch.no_grad():
            assert network(network.example_input()).shape == (1, 1000)


def tiny_space(widths, counts):
    stages = tuple(
        Stage(
            f"s{i}",
            "mbconv",
            (("stride", 1), ("expansion", 1)),
            (("width", w), ("depth", (1, 2)), ("kernel", (3,))),
        )
        for i, w in enumerate(widths)
    )
    return Space("tiny", stages, counts, (8, 16), ("fc",), 8, 10)


def test_size_of_a_space_counted_by_hand():
    space = tiny_space([(8, 16), (8, 16)], (1, 2))
    one_stage = 2 * 2
    two_stages = 3 * 2 * 2  # (8, 8), (8, 16), (16, 16), times depths
    assert space.size() == 2 * (one_stage + two_stages) == len(list(space))


def test_enumeration_of_nano_is_exact_and_valid():
    space = get_space("autovit-nano")
    archs = list(space)
    assert len(archs) == len(set(archs)) == space.size()
    assert {key for arch in archs for key in arch.keys()} == {spec.key for spec in space.block_specs()}


@pytest.mark.parametrize("name", SPACES)
def test_size_agrees_with_brute_force_over_widths(name):
    space = get_space(name)
    total = 0
    for stages in space.stage_counts:
        widths = [dict(stage.choices)["width"] for stage in space.stages[:stages]]
        growing = sum(list(w) == sorted(w) for w in itertools.product(*widths))
        per_width = 1
        for stage in space.stages[:stages]:
            for choice, values in stage.choices:
                per_width *= 1 if choice == "width" else len(values)
        total += growing * per_width
    assert space.size() == total * len(space.resolutions) * len(space.heads)


def test_sampling_is_uniform_within_a_number_of_stages():
    space = tiny_space([(8, 16), (8, 16, 24)], (2,))
    rng, draws = random.Random(0), 12_000
    seen = Counter(space.sample(rng) for _ in range(draws))
    assert len(seen) == space.size()
    expected = draws / space.size()
    chi_square = sum((n - expected) ** 2 / expected for n in seen.values())
    assert chi_square < 75  # 39 degrees of freedom: 99.95 %


@pytest.mark.parametrize("name", SPACES)
def test_mutation_and_crossover_stay_in_the_space(name):
    space, rng = get_space(name), random.Random(2)
    changed = 0
    for _ in range(200):
        a, b = space.sample(rng), space.sample(rng)
        for child in (space.mutate(a, rng), space.crossover(a, b, rng)):
            space.check(child)
            changed += child not in (a, b)
        assert space.mutate(a, rng, p_depth=0.0, p_block=0.0) == a
        assert space.crossover(a, a, rng) == a
    assert changed > 200


@pytest.mark.parametrize("name", SPACES)
def test_every_choice_is_reached_by_mutation(name):
    space, rng = get_space(name), random.Random(3)
    arch, seen = space.sample(rng), set()
    for _ in range(3000):
        arch = space.mutate(arch, rng)
        seen |= {("resolution", arch.resolution), ("head", arch.head), ("stages", len(arch.stages))}
        for stage, values in zip(space.stages, arch.stages, strict=False):
            seen |= {(stage.name, choice, value) for choice, value in zip(stage.names, values, strict=True)}
    expected = {("resolution", r) for r in space.resolutions} | {("head", h) for h in space.heads}
    expected |= {("stages", n) for n in space.stage_counts}
    expected |= {(s.name, choice, v) for s in space.stages for choice, values in s.choices for v in values}
    assert seen == expected


@pytest.mark.parametrize("name", SPACES)
def test_json_is_canonical_and_reads_back(name):
    space, rng = get_space(name), random.Random(4)
    for _ in range(50):
        arch = space.sample(rng)
        assert arch_from_json(arch.to_json()) == arch
        shuffled = json.dumps(dict(reversed(json.loads(arch.to_json()).items())), indent=3)
        assert arch_from_json(shuffled).to_json() == arch.to_json()


def test_whole_ratios_have_one_json_form():
    arch = get_arch("autovit-xxs-paper")
    assert '"mlp_ratio":2}' in arch.to_json() or '"mlp_ratio":2,' in arch.to_json()
    assert "2.0" not in arch_from_json(arch.to_json().replace('"mlp_ratio":2,', '"mlp_ratio":2.0,')).to_json()


def document(**changes):
    return json.loads(get_arch("autovit-xxs-paper").to_json()) | changes


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid_architecture"),
        ("[]", "invalid_architecture"),
        ("{}", "invalid_architecture"),
        ("[" * 100_000, "invalid_architecture"),
        (json.dumps(document()) + " " * 100_000, "invalid_architecture"),
        (json.dumps(document(space="nosuch")), "unknown_space"),
        (json.dumps(document(extra=1)), "invalid_architecture"),
        (json.dumps(document(resolution=255)), "not_in_space"),
        (json.dumps(document(resolution="256")), "invalid_architecture"),
        (json.dumps(document(resolution=True)), "invalid_architecture"),
        (json.dumps(document(head="mlp")), "not_in_space"),
        (json.dumps(document(classes=0)), "not_in_space"),
        (json.dumps(document(stages={})), "not_in_space"),
        (json.dumps(document(stages={"stem": {"width": 17}})), "not_in_space"),
    ],
)
def test_bad_architecture_is_refused_in_one_line(text, code):
    with raises(code) as refused:
        arch_from_json(text)
    assert "\n" not in str(refused.value)


def test_shrinking_widths_are_refused():
    stages = json.loads(get_arch("autovit-xxs-paper").to_json())["stages"]
    stages["stem"]["width"] = 24
    with raises("not_in_space"):
        arch_from_json(json.dumps(document(stages=stages)))


def test_unknown_names_are_refused(tmp_path):
    with raises("unknown_space"):
        get_space("autovit-huge")
    with raises("unknown_architecture"):
        load_arch("autovit-huge-paper")
    with raises("unreadable_file"):
        load_arch(str(tmp_path / "missing.json"))


def test_named_architectures_belong_to_their_spaces():
    for arch in list_archs().values():
        get_space(arch.space).check(arch)
