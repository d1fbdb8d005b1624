"""What the text of `bench search`'s options becomes."""

import pytest

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.cli.search import facts_of
from orchestrator.cli.search_options import LimitOptions, PhoneOptions, SettingOptions
from orchestrator.tasks.search import FoundNetwork
from search.algorithms import Budget, SearchSettings, search
from tests.support.search_world import NANO, Accuracy, make_price
from tests.support.winner_world import make_lut


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = LutStore([tmp_path_factory.mktemp("luts")])
    store.write(make_lut())
    store.write(make_lut())
    return store


def test_each_has_its_lut_and_latency(store):
    name = "host/autovit-nano/executorch-xnnpack-fp32-t2"
    phones = PhoneOptions(f"{name}/v1", "50%", [f"{name}/v2=12ms", f"{name}/v1=80%"]).parse(store)
    reference_ms = make_lut().meta.reference_ms
    assert [phone.latency_ms for phone in phones] == pytest.approx([reference_ms / 2, 12, 0.8 * reference_ms])
    assert [phone.pin.name.rpartition("/")[2] for phone in phones] == ["v1", "v2", "v1"]
    assert phones[0].pin == phones[2].pin


@pytest.mark.parametrize("text", ["host", "=12ms", "host=soon", "host="])
def test_a_further_phone_needs_both(store, text):
    with pytest.raises(UsageError, match="expected"):
        PhoneOptions("host", "5ms", [text]).parse(store)


def test_limits_are_numbers_and_a_confidence():
    given = LimitOptions(params="1.8M", memory="300K", point=True).parse()
    assert given == {"params": 1_800_000, "memory_bytes": 300_000, "cautious": False, "confidence": 0.95}
    with pytest.raises(UsageError, match="--macs 'few'"):
        LimitOptions(macs="few").parse()
    with pytest.raises(UsageError, match="--confidence '20%': expected 50% to 99.9%"):
        LimitOptions(confidence="20%").parse()


def test_objectives_stand_in_one_order_and_must_exist():
    assert SettingOptions(loss_per_ms="0.2%").parse().loss_per_ms == 0.002
    assert SettingOptions(ms_per_loss="0.5s").parse().ms_per_loss == 500
    with pytest.raises(UsageError, match="two readings"):
        SettingOptions(ms_per_loss="0.5s", loss_per_ms="0.2%").parse()
    settings = SettingOptions(draws=7, skeletons=3, p_depth=0.1, p_block=0.3).parse()
    assert (settings.draws, settings.skeletons, settings.p_depth, settings.p_block) == (7, 3, 0.1, 0.3)
    assert (settings.additive, SettingOptions(additive="50%", sample=60).parse().additive) == (0, 0.5)
    with pytest.raises(UsageError, match="--additive '50'.*50%"):
        SettingOptions(additive="50").parse()
    assert SettingOptions(objectives="params,accuracy", seed=3).parse().objectives == ("accuracy", "params")
    with pytest.raises(UsageError, match="beauty"):
        SettingOptions(objectives="accuracy,beauty").parse()


def test_each_luts_budget_and_prediction_are_shown():
    prices = [make_price(), make_price(salt="other")]
    budget = Budget(latency_ms=5, further_latency_ms=(6.5,), cautious=False)
    result = search(NANO, prices, Accuracy(), budget, SearchSettings(population=3, generations=0))
    facts = facts_of(FoundNetwork(result, result.winner, None, "", None))
    assert facts["lut"] == "LUT 1 and LUT 2"
    assert facts["budget"] == "5.000 ms by LUT 1 and 6.500 ms by LUT 2, by prediction"
    arch = result.winner.architecture()
    first, second = (price.model.predict(arch.keys(), arch.boundary_bytes()).ms for price in prices)
    assert facts["predicted"].startswith(f"{first:.3f} ms (up to ")
    assert f") by LUT 1; {second:.3f} ms (up to " in facts["predicted"]
