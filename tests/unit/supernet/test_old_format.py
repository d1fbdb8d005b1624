"""Checkpoints and stored labels as they were first written still load, and runs go on from them.

`old_format/checkpoint.json` is of a run stopped after 2 of 5 steps; its tensors, too large to keep here, are made
anew under the names that they had. The labels are those of `LOGITS` in `test_teacher`, the largest two.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from search.spaces import get_space
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.recipe import Recipe
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.teacher import LabelHeader, StoredLabels
from tests.support.training import supernet_trainer

OLD = Path(__file__).parent / "old_format"
SPACE = get_space("autovit-nano")
NEW = ("changes", "scope", "init", "init_sha256", "sha256")
"""Fields that came later."""

MOMENTS = ("exp_avg", "exp_avg_sq", "mass", "mass_sq")


@pytest.fixture
def old_run(tmp_path):
    """The folder of the old run."""
    weights = {n: p.detach() for n, p in Supernet(SPACE.with_classes(10), 1).named_parameters()}
    average = {name: value / 2 for name, value in weights.items()}
    tensors = {f"weights/{name}": value for name, value in weights.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for moment in MOMENTS:
        tensors |= {f"optimizer/{name}:{moment}": torch.zeros_like(value) for name, value in weights.items()}
    data = save(tensors)
    file_sha256, inherited = hashlib.sha256(data).hexdigest(), hashlib.sha256()
    for name, value in sorted(average.items()):
        inherited.update(f"{name}{tuple(value.shape)}torch.float32".encode())
        inherited.update(value.numpy().tobytes())
    document = json.loads((OLD / "checkpoint.json").read_text()) | {
        "weights_sha256": inherited.hexdigest(),
        "tensors": f"supernet-{file_sha256[:16]}.safetensors",
        "tensors_sha256": file_sha256,
    }
    (tmp_path / document["tensors"]).write_bytes(data)
    (tmp_path / "checkpoint.json").write_text(json.dumps(document))
    (tmp_path / "log.csv").write_text(
        "step,epoch,learning_rate,loss,accuracy,images_per_s,resolution\n1,1,0.1,2.0,0.5,9.0,64\n"
    )
    return tmp_path


def test_a_supernet_of_an_old_checkpoint(old_run):
    supernet, info = load_supernet(old_run)
    (path,) = old_run.glob("*.safetensors")
    stored = load_file(path)
    assert info.step == 2
    assert all(torch.equal(p, stored[f"average/{name}"]) for name, p in supernet.named_parameters())


def test_an_old_run_goes_on_and_writes_what_it_wrote_before(old_run, few_digits):
    before = json.loads((old_run / "checkpoint.json").read_text())
    names = set(load_file(old_run / before["tensors"]))
    trainer = supernet_trainer(SPACE, few_digits(80), Recipe.model_validate(before["recipe"]), old_run)
    steps = []
    trainer.run(lambda progress: steps.append(progress.step))
    assert steps == [3, 4, 5]
    after = json.loads((old_run / "checkpoint.json").read_text())
    assert after.keys() - set(NEW) == before.keys()
    assert (before["format"], after["format"], after["changes"]) == (1, 2, [])
    assert after["weights_sha256"] != before["weights_sha256"]
    assert Recipe.model_validate(after["recipe"]) == Recipe.model_validate(before["recipe"])
    same = ("space", "space_digest", "classes", "data_digest", "image_side", "scaler")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert set(load_file(old_run / after["tensors"])) == names
    log = (old_run / "log.csv").read_text().splitlines()
    assert log[1] == "1,1,0.1,2.0,0.5,9.0,64"
    assert [row.partition(",")[0] for row in log] == ["step", "1", "5"]


def test_old_labels_answer_without_the_teacher():
    header = LabelHeader(
        teacher="a" * 64, data="b" * 64, images="c" * 64, classes=4, top_k=2, steps=2, batch=3
    )

    def never(_images):
        pytest.fail("the teacher was asked although its labels are stored")

    logits = StoredLabels(OLD, header, never).logits(0, 7, torch.zeros(3, 3, 8, 8))
    largest = logits.topk(2, 1)
    assert largest.values.tolist() == [[4.0, 3.0], [5.0, 0.5], [2.5, -1.0]]
    assert largest.indices[:, 0].tolist() == [3, 2, 1]
    assert logits[0, 0] == logits[0, 1] == pytest.approx(1.62, abs=1e-3)
