"""A few networks make another device's LUT a device's own."""

import random
from dataclasses import replace

from luts.estimate.statistics import mape
from luts.format.store import LutStore
from orchestrator.devices.host import scenario_of
from orchestrator.simulate.device import GroundTruth, Scenario
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import AdaptCommand, adapt, profile
from orchestrator.tasks.target import Target
from search.spaces import get_space
from tests.support.errors import raises
from tests.support.simulated_profiles import alike


def found_scenario(device: str) -> Scenario:
    found = scenario_of(device)
    assert found is not None
    return found


def test_five_networks_make_another_devices_lut_ones_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    store = LutStore([tmp_path / "luts"])
    first = profile(
        ProfileCommand(
            space="autovit-nano",
            target=Target(alike(tmp_path, 1, 1.0)),
            plan=PlanOptions(design=30, heldout=3, removals="none"),
            self_test=False,
            store=store,
        )
    )
    assert first.lut.meta.sources == ()
    other = alike(tmp_path, 2, 3.0)
    command = AdaptCommand(
        lut="simulated-alike1", target=Target(other), networks=5, store=store, self_test=False
    )
    adapted = adapt(command)
    assert [source.name for source in adapted.lut.meta.sources] == [
        "simulated-alike1/autovit-nano/simulated-t1/v1"
    ]
    assert adapted.lut.meta.dropped_sources == {}
    roles = [model.role for model in adapted.lut.models]
    assert (len(roles), roles.count("heldout")) == (6, 1)
    scratch = profile(
        ProfileCommand(
            space="autovit-nano",
            target=Target(other),
            plan=PlanOptions(design=4, heldout=1, removals="none"),
            sources="none",
            self_test=False,
            name="simulated-scratch",
            store=store,
        )
    )
    truth = GroundTruth(found_scenario(other).costs)
    space, rng = get_space("autovit-nano"), random.Random(5)
    drawn = [space.sample(rng, (space.default_resolution,)) for _ in range(100)]
    true_ms = [truth.latency_ms(arch.keys()) for arch in drawn]
    errors = [mape(true_ms, [lut.predict(arch).ms for arch in drawn]) for lut in (adapted.lut, scratch.lut)]
    assert errors[0] < 0.7 * errors[1]
    with raises("too_few_networks"):
        adapt(replace(command, networks=2))
