"""Every study end to end on next to nothing, its trainings, and where its section goes."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from luts.format.errors import InvalidArtifactError
from orchestrator.simulate.device import SCENARIOS, Truth
from tools.documents import write_section
from tools.studies import __main__ as command
from tools.studies import (
    _pairs,
    _supernets,
    _training,
    attention_share,
    head_similarity,
    importance,
    inheritance,
)
from tools.studies._networks import classifier
from tools.studies._options import Options


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_pairs, "DEPTH", 2)
    monkeypatch.setattr(_pairs, "CHANNELS", 16)
    monkeypatch.setattr(_training, "BATCH", 256)
    monkeypatch.setattr(head_similarity, "IMAGES", 32)
    monkeypatch.setattr(importance, "IMAGES", 128)
    monkeypatch.setattr(_supernets, "REPORT_STEPS", 1)
    monkeypatch.setattr(inheritance, "RESAMPLES", 20)
    return tmp_path


def run(capsys, *arguments):
    command.main(arguments)
    return capsys.readouterr().out


def test_studies_share_trained_networks_and_write_their_sections(folders, capsys):
    document = folders / "docs" / "results.md"
    options = [
        "--data",
        "digits",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--jobs",
        "1",
        "--document",
        str(document),
    ]
    assert run(capsys, "head_similarity", *options).count("epoch 1 of 1") == 2
    assert "epoch 1 of 1" not in run(capsys, "importance", *options), "the networks are trained already"
    text = document.read_text(encoding="utf-8")
    assert text.index("<!-- begin head_similarity -->") < text.index("<!-- begin importance -->")
    assert "`python -m tools.studies importance --data digits --seeds 1 --epochs 1`" in text
    for name in ("head_similarity", "importance"):
        assert (document.parent / "pictures" / f"{name}.png").stat().st_size > 10_000
    similarities = [float(value) for value in re.findall(r"\| (-?\d\.\d{3})(?= \|)", text)]
    assert len(similarities) == 2 * 4
    assert all(-1 <= value <= 1 for value in similarities)
    assert len(re.findall(r"\| \d+% \|", text)) == 2 * 4


def test_networks_trained_alone_and_together_are_compared(folders, capsys):
    options = ("inheritance", "--quick", "--seeds", "1", "--epochs", "1", "--jobs", "1")
    said = run(capsys, *options)
    assert "Space `autovit-nano`" in said
    rows = [line.split(" | ") for line in said.splitlines() if re.match(r"\| \d+ \| \d", line)]
    assert [row[0] for row in rows] == ["| 1", "| 2", "| 3"]
    for _, _, _, inherited, scratch, difference in rows:
        assert float(difference.strip(" |")) == pytest.approx(float(inherited) - float(scratch), abs=0.11)
    worth = re.findall(r"\| (inherited, first supernet|from scratch) \| (\d+\.\d\d) \| \d+\.\d\d \|", said)
    assert [name for name, _ in worth] == ["inherited, first supernet", "from scratch"]
    assert f"networks inherit {worth[0][1]} % on average" in said
    again = run(capsys, *options)
    assert said.count(": step ") == 4 * 2 + 4, "three alone, a supernet, one of twice its steps"
    assert ": step " not in again, "trained again"
    assert again.splitlines()[-20:] == said.splitlines()[-20:]


def test_a_quick_study_prints_and_writes_no_document(folders, capsys):
    said = run(capsys, "importance", "--quick", "--seeds", "1", "--epochs", "1", "--jobs", "1")
    assert "### Importance of channels" in said
    assert not (folders / "docs").exists()


@pytest.mark.parametrize("study", ["head_similarity", "importance"])
def test_without_images_a_study_says_so_in_one_line(study, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([study])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "studies: this study trains networks; give --data, such as npz:FILE or cifar10:DIR, or --quick"
    ]


def test_shares_of_attention_get_the_latencies_of_a_device_whose_truth_is_known(capsys):
    said = run(capsys, "attention_share", "--quick", "--device", "simulated:quiet", "--budget", "1s")
    assert "SIMULATED" in said
    truth = Truth(SCENARIOS["quiet"].costs)
    found = re.findall(r"\| 100% \|.*\| (\d+\.\d{3}) \| (\d+\.\d{3}) to (\d+\.\d{3}) \|", said)
    assert len(found) == 2
    for sees, (ratio, low, high) in zip(("full", "split"), found, strict=True):
        made = attention_share.networks(
            sees,
            attention_share.QUICK_COUNTS,
            attention_share.QUICK_CHANNELS,
            attention_share.QUICK_RESOLUTION,
        )
        without, only = (truth.latency_ms([block.key for block in blocks]) for blocks in made.values())
        assert float(ratio) == pytest.approx(only / without, rel=0.02)
        assert float(low) <= float(ratio) <= float(high)


ALONE = Options(
    None, quick=True, seeds=1, epochs=1, jobs=1, device="host", budget_s=1, pictures=Path("unused")
)


def job_of(images, epochs):
    keys = tuple(block.key for block in classifier("split", 1, 8, 2, 4, 10))
    return _training.Job(keys, "digits", images.source.digest, epochs, seed=0, quick=True)


def test_a_training_that_was_cut_off_goes_on_as_if_it_never_was(folders, monkeypatch):
    images = _training.open_images(None, quick=True)
    job = job_of(images, 2)
    whole = _training.train_all([job], ALONE)[0]
    job.path.unlink()
    save = _training._save

    def save_and_stop(*given):
        save(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(_training, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        _training.train_all([job], ALONE)
    monkeypatch.setattr(_training, "_save", save)
    again = _training.train_all([job], ALONE)[0]
    assert again.accuracy == whole.accuracy
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_damaged_checkpoint_is_named(folders):
    images = _training.open_images(None, quick=True)
    job = job_of(images, 1)
    _training.train_all([job], ALONE)
    job.path.write_bytes(job.path.read_bytes()[:100])
    with pytest.raises(InvalidArtifactError, match="remove it and train again"):
        _training.train_all([job], ALONE)


def test_other_seeds_and_networks_are_other_trainings():
    images = _training.open_images(None, quick=True)
    job = job_of(images, 1)
    others = [
        dataclasses.replace(job, seed=1),
        dataclasses.replace(job, epochs=2),
        dataclasses.replace(job, quick=False),
    ]
    assert len({each.path for each in (job, *others)}) == 4
    assert dataclasses.replace(job, data="elsewhere").path == job.path


def test_a_section_replaces_what_stood_between_its_markers(tmp_path):
    document = tmp_path / "results.md"
    document.write_text("# Results\n\n<!-- begin one -->\nold\n<!-- end one -->\n\n## Other\n")
    write_section(document, "one", "new\n")
    write_section(document, "two", "more")
    assert document.read_text() == (
        "# Results\n\n<!-- begin one -->\nnew\n<!-- end one -->\n\n## Other\n\n"
        "<!-- begin two -->\nmore\n<!-- end two -->\n"
    )
    document.write_text("<!-- begin one -->\nold\n")
    with pytest.raises(ValueError, match="without"):
        write_section(document, "one", "new")
