"""What is wrong with a bundle, or with where it is run, is one line."""

import hashlib
import json

import pytest

from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.bundle.archive import MANIFEST, MODELS
from orchestrator.cli.exit_codes import exit_code
from tests.support.bundle_world import OTHER, Ended, rewritten, run


def test_samples_of_two_versions_are_not_mixed(made, tmp_path):
    def end(said):
        raise Ended

    with pytest.raises(Ended):
        run(made, tmp_path, tell=end)
    (tmp_path / "made-up.jsonl").rename(tmp_path / "another.jsonl")
    with pytest.raises(BlocktimeError, match="another version of agent or system; give another --journal"):
        run(made, tmp_path, OTHER)


def test_a_journal_of_another_bundle_is_refused(made, finished, tmp_path):
    journal = finished
    before = journal.read_bytes()
    rewritten(made, lambda files: files.update({MANIFEST: files[MANIFEST] + b" "}))
    with pytest.raises(InvalidArtifactError, match="belongs to another bundle"):
        run(made, tmp_path)
    assert journal.read_bytes() == before


def protocol(files):
    document = json.loads(files[MANIFEST])
    files[MANIFEST] = json.dumps({**document, "protocol": 2}).encode()


def without_a_model(files):
    del files[next(name for name in files if name.startswith(MODELS))]


def forgotten_model(files):
    document = json.loads(files[MANIFEST])
    name = next(name for name in files if name.startswith(MODELS))
    del files[name], document["files"][name]
    files[MANIFEST] = json.dumps(document).encode()


def longer_plan(files):
    files["script.json"] = files["script.json"].replace(b'"warmup":1', b'"warmup":2')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            protocol,
            "is a bundle for protocol 2, and this is 1; take bundle, agent and bench of the same version",
        ),
        (without_a_model, "models/.* is missing or cut short; copy the bundle again"),
        (forgotten_model, "the model .* is missing; make the bundle again"),
        (longer_plan, "script.json was changed; copy the bundle again"),
        (lambda files: files.clear(), "is not a bundle of bench"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(made, tmp_path, change, reason):
    rewritten(made, change)
    with pytest.raises(InvalidArtifactError, match=reason) as refused:
        run(made, tmp_path)
    assert exit_code(refused.value) == 6
    assert not (tmp_path / "made-up.jsonl").exists()


def test_a_bundle_for_another_kind_of_device_is_refused(made, tmp_path):
    def other(files):
        document = json.loads(files[MANIFEST])
        script = files["script.json"].replace(b'"runtime":"simulated"', b'"runtime":"coreml"')
        document["files"]["script.json"] = {
            "bytes": len(script),
            "sha256": hashlib.sha256(script).hexdigest(),
        }
        files |= {"script.json": script, MANIFEST: json.dumps(document).encode()}

    rewritten(made, other)
    with pytest.raises(InvalidArtifactError, match="is for linux: this agent has no runtime coreml"):
        run(made, tmp_path)


def test_a_damaged_model_is_refused(made, tmp_path):
    def damage(files):
        name = next(name for name in files if name.startswith(MODELS))
        files[name] = b"x" * len(files[name])

    rewritten(made, damage)
    with pytest.raises(InvalidArtifactError, match="is damaged; copy the bundle again"):
        run(made, tmp_path)
