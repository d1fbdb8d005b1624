"""A foreign LUT read for a device is as wide as devices are apart; a few networks make it the device's own."""

import json
import math
import random

import numpy as np
import pytest

from luts.estimate.accuracy import mape
from luts.format.errors import UsageError
from luts.format.latency import Prediction
from luts.format.store import LutRef, LutStore
from orchestrator.devices.simulated import scenario_of
from orchestrator.simulate.scenario import Scenario
from orchestrator.simulate.truth import Truth
from orchestrator.tasks.adapt import adapt
from orchestrator.tasks.foreign import Spread, device_spread, warning, widened
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.profile import profile
from search.spaces import get_space
from tests.unit.tasks.test_sources import WORLD, made, slower


def test_the_spread_is_of_pairs_of_devices_and_widens_by_hand(tmp_path) -> None:
    store = LutStore([tmp_path])
    store.write(made(name="pixel"))
    store.write(made(name="pixel", variant="executorch-xnnpack-fp32-t2"))
    assert device_spread(store, "toy", "executorch") is None, "one device"
    store.write(made(slower(WORLD, 3.0), 2, name="xiaomi"))
    found = device_spread(store, "toy", "executorch")
    assert found is not None
    assert found.devices == ("pixel", "xiaomi")
    assert math.exp(found.log_sd) == pytest.approx(3.0, rel=0.1)
    assert device_spread(store, "toy", "coreml") is None
    wide = widened(Prediction(10.0, 9.0, 11.0, 0.9, (), "conformal"), Spread(0.1, ("a", "b")))
    factor = math.exp(np.hypot(math.log(1.1), 0.196))
    assert (wide.low, wide.high) == pytest.approx((10 / factor, 10 * factor))
    assert (wide.ms, wide.level, wide.basis) == (10.0, 0.95, "spread")


def test_the_warning_names_both_devices_and_what_to_do(tmp_path) -> None:
    ref = LutRef("pixel", "toy", "executorch-xnnpack-fp32-t1", 1, tmp_path)
    said = warning(ref, "xiaomi", Spread(0.1, ("pixel", "iphone")))
    assert (
        "is of pixel, not of xiaomi: predictions may be off by a factor of 1.22, as pixel, iphone are apart"
        in said
    )
    assert f"bench lut adapt {ref} --device xiaomi" in said
    assert "no second one has a LUT" in warning(ref, "xiaomi", None)


def scenario(folder, number: int, speed: float) -> str:
    """A device that is alike but for a twentieth, and faster or slower."""
    costs = {"own_seed": number, "own_sd": 0.03, "deviation_sd": 0.12}
    costs |= {"ms_per_mmac": 0.02 * speed, "ms_per_mib": 0.05 * speed, "constant_ms": 0.03 * speed}
    document = {"name": f"alike{number}", "costs": costs, "noise": {"load_sd": 0.002}, "noise_seed": number}
    path = folder / f"{number}.json"
    path.write_text(json.dumps(document))
    return f"simulated:{path}"


def found_scenario(device: str) -> Scenario:
    found = scenario_of(device)
    assert found is not None
    return found


def test_five_networks_make_another_devices_lut_ones_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    store = LutStore([tmp_path / "luts"])
    choice = PlanChoice(design=30, heldout=3, removals="none")
    first = profile("autovit-nano", scenario(tmp_path, 1, 1.0), choice, self_test=False, store=store)
    assert first.lut.meta.sources == ()
    other = scenario(tmp_path, 2, 3.0)
    adapted = adapt("simulated-alike1", other, 5, store=store, self_test=False)
    assert [source.name for source in adapted.lut.meta.sources] == [
        "simulated-alike1/autovit-nano/simulated-t1/v1"
    ]
    assert adapted.lut.meta.dropped_sources == {}
    roles = [model.role for model in adapted.lut.models]
    assert (len(roles), roles.count("heldout")) == (6, 1)
    scratch = profile(
        "autovit-nano",
        other,
        PlanChoice(design=4, heldout=1, removals="none", sources="none"),
        self_test=False,
        name="simulated-scratch",
        store=store,
    )
    truth = Truth(found_scenario(other).costs)
    space, rng = get_space("autovit-nano"), random.Random(5)
    drawn = [space.sample(rng, (space.default_resolution,)) for _ in range(100)]
    true_ms = [truth.latency_ms(arch.keys()) for arch in drawn]
    errors = [mape(true_ms, [lut.predict(arch).ms for arch in drawn]) for lut in (adapted.lut, scratch.lut)]
    assert errors[0] < 0.7 * errors[1]
    with pytest.raises(UsageError, match="-n 2: 3 networks are the fewest"):
        adapt("simulated-alike1", other, 2, store=store)
