"""Predicted latencies, why there are none, and those of a proxy: a LUT of another device, with wider bounds."""

import dataclasses
import json
import math
import random
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from luts.format.latency import EntryCost, LatencyModel, Prediction
from luts.format.lut import Lut
from luts.format.store import LutRef, LutStore
from orchestrator.agent.device import describe_host
from orchestrator.devices.host import scenario_of
from orchestrator.simulate.device import GroundTruth
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.predict import DeviceSpread, Proxy, device_spread, predict, proxy_for
from orchestrator.tasks.profile import profile
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import OptionalDevice, SearchCommand, SettingOptions, TargetOptions
from orchestrator.tasks.target import Target
from orchestrator.winner.result import lut_text
from orchestrator.wire.errors import DeviceError
from search.spaces import get_arch, get_space
from search.spaces.registry import arch_from_json
from tests.support.bench import bench
from tests.support.errors import raises
from tests.support.simulated_profiles import alike
from tests.support.winner_world import SPACE, make_lut
from tests.unit.tasks.test_sources import FAST, made

ARCH = SPACE.sample(random.Random(0))
INT8 = "executorch-xnnpack-int8-t1"
SLOWER = 3.0


def test_networks_are_priced_by_their_names(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(ARCH.to_json())
    predicted = predict(make_lut(), {"a": ARCH})
    assert predicted == {"a": make_lut().predict(ARCH)}
    assert predict(make_lut(), str(file)) == {str(file): predicted["a"]}
    assert predict(make_lut(), ARCH, resolution=ARCH.resolution) == {ARCH.digest: predicted["a"]}


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (get_arch("autovit-xxs-paper"), "wrong_space"),
        ("timm:resnet18", "not_priceable"),
        ("ceit-t", "not_priceable"),
    ],
)
def test_an_error_says_why_a_network_has_no_price(network, code):
    with raises(code):
        predict(make_lut(), network if isinstance(network, str) else {"a": network})


def test_networks_of_other_classes_are_priced():
    lut, notes = make_lut(), []
    seven = ARCH.with_classes(7)
    predicted = predict(lut, {"seven": seven, "ten": ARCH}, progress=notes.append)
    assert predicted["ten"] == lut.predict(ARCH)
    assert predicted["seven"].weak_keys[-1] == seven.keys()[-1]
    assert predicted["seven"].ms <= predicted["ten"].ms
    (note,) = notes
    assert "the LUT measured classifiers of 10 classes; those of 7 follow from its physics" in note.text
    assert "profile with --classes 7" in note.text


def test_other_resolution_is_not_another_space():
    lut = make_lut()
    xxs = get_space("autovit-xxs")
    arch = xxs.sample(random.Random(0), (224,))
    keys = {key for other in (192, 256) for key in keys_at(xxs, other)}
    entries = tuple(lut.entries[0].model_copy(update={"key": key}) for key in sorted(keys))
    meta = lut.meta.model_copy(update={"space": xxs.name, "space_hash": xxs.digest})
    of_two = type(lut)(meta, entries, lut.models, lut.samples)
    with raises("wrong_resolution"):
        predict(of_two, {"a": arch})


def keys_at(space, resolution):
    return [block.key for block in space.block_specs((resolution,))]


def ref_of(lut: Lut, tmp_path) -> LutRef:
    return LutRef(lut.meta.device.name, lut.meta.space, lut.meta.variant, 1, tmp_path)


@pytest.fixture(scope="module")
def pixel() -> Lut:
    return made(name="pixel")


def like(lut: Lut, factor: float = 1.0, variant: str = "", **device: object) -> Lut:
    """The LUT of another device, on which every block costs `factor` times as much."""
    reported = lut.meta.device.model_copy(update=device)
    meta = lut.meta.model_copy(update={"device": reported, "variant": variant or lut.meta.variant})
    entries = tuple(
        entry.model_copy(update={"ms": factor * entry.ms, "ci_high": factor * entry.ci_high})
        for entry in lut.entries
    )
    return dataclasses.replace(lut, meta=meta, entries=entries)


def test_the_spread_by_hand(tmp_path, pixel) -> None:
    store = LutStore([tmp_path])
    store.write(pixel)
    store.write(like(pixel, 7.0, variant="executorch-xnnpack-fp32-t2"))
    ref = ref_of(pixel, tmp_path)
    assert device_spread(store, ref) is None, "one device"
    store.write(like(pixel, 3.0, name="xiaomi"))
    found = device_spread(store, ref)
    assert found is not None
    assert found.log_sd == pytest.approx(math.log(3.0))
    assert found.devices == ("pixel", "xiaomi")
    store.write(like(pixel, 9.0, INT8, name="iphone"))
    assert device_spread(store, ref) == found, "devices with a LUT of the same variant are known"
    int8 = dataclasses.replace(ref, device="iphone", variant=INT8)
    among = device_spread(store, int8)
    assert among is not None
    assert set(among.devices) == {"iphone", "pixel", "xiaomi"}, "one alone has int8, so all variants count"
    logs = [math.log(9), math.log(3), math.log(3)]
    assert among.log_sd == pytest.approx(math.sqrt(sum(log**2 for log in logs) / 3))
    coreml = dataclasses.replace(ref, variant="coreml-fp16-all")
    assert device_spread(store, coreml) is None


def test_a_widened_interval_by_hand() -> None:
    own = Prediction(10.0, 9.0, 11.0, 0.9, (), "conformal")
    wide = Proxy("x", DeviceSpread(0.1, ("a", "b"))).widen(own)
    factor = math.exp(np.hypot(math.log(1.1), 0.196))
    assert (wide.low, wide.high) == pytest.approx((10 / factor, 10 * factor))
    assert (wide.ms, wide.level, wide.basis) == (10.0, 0.95, "spread")
    unknown = Proxy("x", None).widen(own)
    assert unknown == dataclasses.replace(own, level=None), "no level can be claimed without a spread"


def test_a_widened_bound_by_hand() -> None:
    costs = {"a": EntryCost(2.0, 0.5, weak=False), "w": EntryCost(1.0, 0.4, weak=True)}
    errors = tuple(-0.05 + 0.01 * i for i in range(20))
    own = LatencyModel(0.5, 0.0, costs, 0.2, 0.95, errors)
    away = dataclasses.replace(own, device_log_sd=0.3)
    z = NormalDist().inv_cdf(0.9)
    relative = math.exp(math.hypot(math.log1p(errors[18]), z * 0.3)) - 1
    assert away.margin(0.9).relative == pytest.approx(relative)
    assert away.margin(0.9).arms_ms == pytest.approx({"w": own.margin(0.9).arms_ms["w"] * math.exp(z * 0.3)})
    whole = math.exp(math.hypot(math.log(own.bound_ms(["a", "w"], 0, 0.9) / 3.5), z * 0.3))
    assert 3.5 * whole <= away.bound_ms(["a", "w"], 0, 0.9) <= 1.05 * 3.5 * whole
    assert away.predict(["a"], 0) == own.predict(["a"], 0).for_other_device(0.3)
    assert away.margin(0.5).relative >= 0


def test_a_luts_own_devices(tmp_path, pixel) -> None:
    store = LutStore([tmp_path / "luts"])

    def meant(lut: Lut, device: str) -> Proxy | None:
        return proxy_for(ref_of(lut, tmp_path), lut, device, store)

    here = describe_host()
    machine: dict[str, Any] = {"model": here.model, "soc": here.soc or "", "memory_bytes": here.memory_bytes}
    assert meant(like(pixel, name="my-laptop", **machine), "host") is None
    theirs = like(pixel, name="host", **machine | {"soc": "another processor"})
    assert meant(theirs, "host") == Proxy("host", None), "every machine is called host"
    phone = like(pixel, name="my-phone", model="Pixel 8")
    assert meant(phone, "Pixel 8") is None
    assert meant(phone, "my-phone") is None
    assert meant(phone, "pixel7") == Proxy("pixel7", None)
    store.write(like(pixel, name="lab-phone"))
    assert meant(phone, "lab-phone") == Proxy("lab-phone", None)
    with raises("unknown_device", DeviceError):
        meant(phone, "pixle8")


def test_the_warning_names_both_devices(tmp_path) -> None:
    ref = LutRef("pixel", "toy", FAST, 1, tmp_path)
    message = Proxy("xiaomi", DeviceSpread(0.1, ("pixel", "iphone"))).warning(ref)
    assert "measured on pixel, not on xiaomi: predictions may be off by a factor of 1.22" in message
    assert f"bench lut adapt {ref} --device xiaomi" in message
    message = Proxy("xiaomi", None).warning(ref)
    assert "intervals and limits are those of pixel" in message


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with LUTs of two simulated devices, the second three times as slow, and its name."""
    folder = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKTIME_RUNS", str(folder / "runs"))
        store = LutStore([folder / "luts"])
        plan = PlanOptions(design=8, heldout=3, removals="none")
        device = Target(alike(folder, 1, 1.0))
        first = profile(
            ProfileCommand(space="autovit-nano", target=device, plan=plan, self_test=False, store=store)
        )
        store.write(like(first.lut, SLOWER, name="simulated-alike2"))
        yield store, alike(folder, 2, SLOWER), folder


def test_a_search_by_a_proxy(world, monkeypatch):
    store, device, folder = world
    monkeypatch.setenv("BLOCKTIME_RUNS", str(folder / "runs"))
    options = SearchCommand(
        targets=TargetOptions(lut="simulated-alike1", latency="500%"),
        settings=SettingOptions(skeletons=3),
        measured_on=OptionalDevice(device),
        top=2,
        luts=store.roots[0],
        output=folder / "out",
    )
    notes = []
    found = find_network(options, notes.append)
    spread = device_spread(store, store.resolve("simulated-alike1"))
    assert spread is not None
    assert math.exp(spread.log_sd) == pytest.approx(SLOWER)
    assert any("was measured on simulated-alike1, not on " in str(note) for note in notes)
    (pin,) = found.result.provenance.luts
    assert (pin.read_for, pin.device_log_sd) == (device, spread.log_sd)
    assert "a proxy for" in lut_text(pin)
    apart = NormalDist().inv_cdf(0.95) * spread.log_sd
    for row in found.result.evaluated:
        assert row.latency_high_ms <= found.result.constraints.latency_ms
        assert row.latency_high_ms / row.latency_ms > math.exp(apart)
    scenario = scenario_of(device)
    assert scenario is not None
    for measured in found.measured.models:
        truth_ms = GroundTruth(scenario.costs).latency_ms(arch_from_json(measured.arch).keys())
        assert measured.measured_ms == pytest.approx(truth_ms, rel=0.02), "in the device's own milliseconds"
        assert measured.measured_low < measured.measured_ms < measured.measured_high
        assert measured.predicted_high / measured.predicted_ms > math.exp(1.96 * spread.log_sd)
    predicted = dataclasses.replace(options, measured_on=OptionalDevice())
    own = find_network(dataclasses.replace(predicted, output=folder / "own"))
    assert own.result.winner.macs > found.result.winner.macs
    with raises("other_search"):
        find_network(predicted)
    with raises("proxy_feedback"):
        find_network(dataclasses.replace(options, feedback=True, output=folder / "fed"))


def test_the_commands_warn(world):
    store, device, folder = world
    arch = folder / "arch.json"
    arch.write_text(get_space("autovit-nano").sample(random.Random(0)).to_json())
    done = bench(
        "predict", arch, "--lut", "simulated-alike1", "--luts", store.roots[0],
        "--device", device, "--json",
    )  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert row["basis"] == "spread"
    assert row["high"] / row["ms"] > SLOWER
    assert (
        "warning: simulated-alike1/autovit-nano/simulated-t1/v1 was measured on simulated-alike1"
        in done.stderr
    )
    asked = [
        "search", "--lut", "simulated-alike1", "--latency", "100%", "--luts", store.roots[0],
        "--device", device, "-o", folder / "none",
    ]  # fmt: skip
    tight = bench(*asked)
    assert tight.returncode == 5, tight.stderr
    assert "its upper bound at 95 %" in tight.stderr
