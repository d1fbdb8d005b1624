"""Teachers that know something of the images, and the weights that they come with."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from luts.format.errors import UsageError
from search.supernet.train.teacher import PACKAGES, Teacher, load_teacher
from tests.support.errors import raises


def test_teacher_sees_what_the_subnet_sees(digits, oracle):
    teacher = oracle(digits)
    images, labels = digits.batch(digits.split.train[:64], 8)
    assert torch.equal(teacher.logits(images).argmax(1), labels)
    teacher.check(digits, 8)


def test_teacher_at_chance_is_refused(digits):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=10)
    with raises("teacher_at_chance"):
        Teacher("random", model).check(digits, 64)


def test_teacher_checkpoints_load_strictly(tmp_path):
    name = "test_resnet.r160_in1k"
    model = timm.create_model(name, num_classes=10)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pth"):
        teacher = load_teacher(f"timm:{name}:{path}", 10)
        loaded = teacher.model.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)
    state.pop(next(iter(state)))
    save_file(state, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    (tmp_path / "c.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:1000])
    (tmp_path / "junk.pth").write_bytes(b"junk" * 100)
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": 3}, tmp_path / "number.pth")
    torch.save(model, tmp_path / "whole.pth")
    for path in (
        "b.safetensors",
        "c.safetensors",
        "c.pth",
        "junk.pth",
        "list.pth",
        "number.pth",
        "whole.pth",
    ):
        with raises("invalid_weights"):
            load_teacher(f"timm:{name}:{tmp_path / path}", 10)
    with raises("no_such_path"):
        load_teacher(f"timm:{name}:{tmp_path / 'none.pth'}", 10)


@pytest.mark.parametrize("text", ["resnet18", "timm:", "timm:no_such_model", "timm:resnet26t.untrained"])
def test_unknown_teachers_are_usage_errors(text):
    with pytest.raises(UsageError):
        load_teacher(text, 10)


def test_teacher_for_other_classes_is_refused(tmp_path):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    with raises("class_mismatch"):
        load_teacher(f"timm:test_resnet.r160_in1k:{tmp_path / 'seven.pth'}", 10)


def test_weights_of_an_installed_package_load_by_position(tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", "some-teacher-model")
    folder = tmp_path / "some_teacher_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('not to be run')")
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({f"_x{i}": value for i, value in enumerate(state.values())}, folder / "models" / "a.pth")
    with raises("package_missing"):
        load_teacher("timm:tf_efficientnet_lite0", 1000)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_teacher("timm:tf_efficientnet_lite0", 1000).model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    with raises("class_mismatch"):
        load_teacher("timm:tf_efficientnet_lite0", 10)


def test_no_teacher_is_downloaded(monkeypatch, tmp_path):
    def no_network(*_, **__):
        pytest.fail("a run must not download")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("socket.create_connection", no_network)
    with raises("no_weights"):
        load_teacher("timm:resnet18", 1000)


def test_teacher_without_trained_weights_is_refused():
    untrained = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with raises("no_weights"):
        load_teacher(f"timm:{untrained}", 10)
