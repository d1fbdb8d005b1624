"""What `bench train` and `bench eval` refuse or note before and after the work itself."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app
from search.supernet.inherit import FinalScore, record_final
from tests.support.errors import raises


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--distill", "hard"), "missing_option"),
        (("--teacher-labels", "labels"), "missing_option"),
        (("--alpha", "0"), "missing_option"),
        (("--on", "tpu"), "unknown_device"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, code):
    command = ("train", "--space", "autovit-nano", "--data", "digits", "-o", str(tmp_path / "run"), *options)
    with raises(code):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_a_gpu_for_each_process_or_a_refusal(monkeypatch):
    from search.supernet.train.parallel import local_device

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert local_device("cuda").index == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    with raises("device_unavailable"):
        local_device("cuda")


def test_final_evaluations_of_other_architectures_are_counted(tmp_path):
    first = FinalScore(arch="a", weights_sha256="0" * 64, top1=0.5, top5=0.9)
    assert record_final(tmp_path / "final.json", first) == 0
    assert record_final(tmp_path / "final.json", first) == 0
    assert record_final(tmp_path / "final.json", first.model_copy(update={"arch": "b"})) == 1
    assert record_final(tmp_path / "final.json", first.model_copy(update={"weights_sha256": "1" * 64})) == 0
    mine = tmp_path / "mine" / "final.json"
    third = first.model_copy(update={"arch": "c"})
    assert record_final(mine, third, tmp_path / "final.json") == 2
    assert record_final(mine, third) == 0
    assert "c" not in [score["arch"] for score in json.loads((tmp_path / "final.json").read_text())["scores"]]
    (tmp_path / "final.json").write_text("[]")
    with raises("invalid_file"):
        record_final(tmp_path / "final.json", first)
