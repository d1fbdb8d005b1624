"""What a LUT says of networks, and why it says nothing."""

import random

import pytest

from orchestrator.tasks.predict import predict
from search.spaces import get_arch, get_space
from tests.support.errors import raises
from tests.support.winner_world import SPACE, make_lut

ARCH = SPACE.sample(random.Random(0))


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
