"""A bundle run by an agent alone becomes the LUT that a live run would make; what is wrong with one is one line."""

import hashlib
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.agent.alone import run_bundle
from orchestrator.agent.store import ModelStore
from orchestrator.bundle import player
from orchestrator.bundle.archive import MANIFEST, MODELS, open_bundle
from orchestrator.bundle.journal import read_journal
from orchestrator.bundle.loopback import Loopback
from orchestrator.cli.exit_codes import exit_code
from orchestrator.export.artifacts.variant import Variant
from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.plan.bundled import fixed_policy
from orchestrator.plan.policy import Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.scenario import Scenario
from orchestrator.tasks.bundle import bundle, variant_for
from orchestrator.tasks.imported import import_journals
from orchestrator.tasks.plan import PlanChoice
from tests.support.bench import bench

DEVICE = Scenario(name="made-up", noise_seed=3)
OTHER = Scenario(name="another", noise_seed=4)
POLICY = fixed_policy(Policy(batch_models=9, warmup=1, warmup_ms=0, settle_runs=0, cooling_s=0.0), 2, 10)


class Ended(BaseException):
    """The process of an agent is ended."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A bundle, and the journal of a whole run of it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BLOCKTIME_CACHE", str(folder / "cache"))
        made = bundle(
            "autovit-nano",
            "linux",
            folder / "nano.bundle",
            Variant("simulated", "", threads=1),
            PlanChoice(design=14, heldout=3, removals="none"),
            policy=POLICY,
        )
    return made, run(made, folder)


@pytest.fixture
def made(once, tmp_path):
    path = tmp_path / "nano.bundle"
    shutil.copyfile(once[0].path, path)
    return replace(once[0], path=path)


@pytest.fixture
def finished(once, tmp_path):
    return Path(shutil.copyfile(once[1], tmp_path / "made-up.jsonl"))


@pytest.fixture
def store(tmp_path):
    return LutStore([tmp_path / "luts"])


def run(made, folder, scenario=DEVICE, tell=lambda _: None):
    models = ModelStore(folder / f"store-{scenario.name}")
    journal = folder / f"{scenario.name}.jsonl"
    return run_bundle(made.path, journal, lambda token: simulated_agent(scenario, token, models), tell)


def kinds(journal):
    return [record["kind"] for record in read_journal(journal)[1]]


def edited(journal, change):
    """The journal with a line changed by hand."""
    lines = journal.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if '"kind":"load"' in line)
    lines[place] = change(lines[place])
    journal.write_text("".join(lines))


def rewritten(made, change):
    """The bundle with its files changed."""
    with tarfile.open(made.path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    change(files)
    with tarfile.open(made.path, "w") as tar:
        for name, content in files.items():
            path = made.path.with_name("part")
            path.write_bytes(content)
            tar.add(path, name)


def test_its_lut_is_the_device_s(made, finished, tmp_path, store):
    (imported,) = import_journals([finished], store=store)
    lut = imported.lut
    assert lut.meta.measured == "simulated"
    assert lut.meta.device.name == imported.path.parts[-4]
    assert imported.measurement.batches_kept + imported.measurement.batches_rejected == made.batches
    assert lut.meta.policy["max_passes"] == 2
    assert lut.meta.heldout_error.mape < 0.03
    verify_lut(imported.path)


def test_a_run_that_was_ended_goes_on_where_it_was(made, tmp_path, store):
    def end_in_third(said):
        if said.startswith("batch 3 "):
            raise Ended

    with pytest.raises(Ended):
        run(made, tmp_path, tell=end_in_third)
    told = []
    journal = run(made, tmp_path, tell=told.append)
    assert told[0].startswith("batch 3 ")
    assert kinds(journal).count("batch") == made.batches
    assert kinds(journal).count("start") == 2
    assert len(import_journals([journal], store=store)) == 1
    told.clear()
    assert run(made, tmp_path, tell=told.append) == journal
    assert not told


def test_a_batch_that_was_cut_off_is_begun_again_and_its_samples_do_not_count(
    made, tmp_path, store, monkeypatch
):
    ask, runs = Loopback.try_ask, []

    def end_in_second_run(self, fields, payload=None):
        runs.extend([0] if fields["op"] == "run" else [])
        if len(runs) == 2:
            raise Ended
        return ask(self, fields, payload)

    monkeypatch.setattr(Loopback, "try_ask", end_in_second_run)
    with pytest.raises(Ended):
        run(made, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    (imported,) = import_journals([run(made, tmp_path)], store=store)
    assert imported.measurement.batches_rejected >= 1
    assert imported.measurement.batches_kept <= made.batches


def test_a_line_that_was_being_written_does_not_count(made, finished, tmp_path):
    journal = finished
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-5])
    assert kinds(journal)[-1] == "end"
    assert run(made, tmp_path).read_bytes().count(b'"kind":"done"') == 1


def test_a_model_that_ends_the_agent_twice_is_left_out(made, tmp_path, store, monkeypatch):
    deadly = open_bundle(made.path).script.batches[0].slots[2]
    ask = Loopback.try_ask

    def deadly_load(self, fields, payload=None):
        if fields["op"] == "load" and fields["sha256"] == deadly:
            raise Ended
        return ask(self, fields, payload)

    monkeypatch.setattr(Loopback, "try_ask", deadly_load)
    for _ in range(2):
        with pytest.raises(Ended):
            run(made, tmp_path)
    (imported,) = import_journals([run(made, tmp_path)], store=store)
    (reason,) = imported.lut.meta.failures.values()
    assert reason == "the agent was ended 2 times while loading it"


def test_a_hot_device_is_given_time_and_its_batch_repeated(made, tmp_path, store, monkeypatch):
    ask, states, slept = Loopback.try_ask, iter(["nominal", "serious", "serious"]), []

    def warm(self, fields, payload=None):
        reply, raw = ask(self, fields, payload)
        for name in ("state", "state_after"):
            if name in reply:
                reply[name]["thermal_state"] = next(states, "nominal")
        return reply, raw

    monkeypatch.setattr(Loopback, "try_ask", warm)
    monkeypatch.setattr(player, "_sleep", slept.append)
    journal = run(made, tmp_path)
    ends = [record for record in read_journal(journal)[1] if record["kind"] == "end"]
    assert (ends[0]["ended"], ends[0]["again"]) == ("hot", True)
    assert [end["ended"] for end in ends[1:]] == ["done"] * made.batches
    assert slept == [10.0]
    (imported,) = import_journals([journal], store=store)
    assert imported.measurement.batches_rejected >= 1


def test_a_device_that_is_not_ready_is_waited_for(made, tmp_path, monkeypatch):
    ask, slept = Loopback.try_ask, []

    def locked(self, fields, payload=None):
        if fields["op"] == "run" and len(slept) < 2:
            return {"error": {"code": "not_ready", "message": "unlock it"}}, b""
        return ask(self, fields, payload)

    monkeypatch.setattr(Loopback, "try_ask", locked)
    monkeypatch.setattr(player, "_sleep", slept.append)
    told = []
    run(made, tmp_path, tell=told.append)
    assert told.count("waiting, unlock it") == 1
    assert slept == [10.0, 10.0]


def test_two_devices_make_two_luts_and_one_device_one(made, finished, tmp_path, store):
    first, second = finished, run(made, tmp_path, OTHER)
    with pytest.raises(InvalidArtifactError, match=r"same bundle and device .*, as .*; for another unit"):
        import_journals([first, first], store=store)
    assert not (tmp_path / "luts").exists()
    names = {one.lut.meta.device.name for one in import_journals([first, second], store=store)}
    assert len(names) == 2
    with pytest.raises(
        InvalidArtifactError, match="imported as .*for another unit give it a --name"
    ) as refused:
        import_journals([first], store=store)
    assert exit_code(refused.value) == 6
    assert len(import_journals([first], name="second-unit", store=store)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace('"load_ns":5', '"load_ns":6', 1),
        lambda line: "",
        lambda line: line + line,
        lambda line: line.replace('{"chain":', '{"chain" :', 1),
    ],
)
def test_a_journal_that_was_edited_is_refused(finished, tmp_path, store, change):
    edited(finished, change)
    with pytest.raises(InvalidArtifactError, match="line [0-9]+ was changed or damaged") as refused:
        import_journals([finished], store=store)
    assert exit_code(refused.value) == 6
    assert not (tmp_path / "luts").exists()


def test_a_run_that_is_not_finished_makes_no_lut(made, tmp_path, store):
    def end_in_third(said):
        if said.startswith("batch 3 "):
            raise Ended

    with pytest.raises(Ended):
        run(made, tmp_path, tell=end_in_third)
    with pytest.raises(MeasurementRejectedError, match=f"2 of {made.batches} batches are run"):
        import_journals([tmp_path / "made-up.jsonl"], store=store)


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


def test_which_variants_there_are():
    assert variant_for("android").name == "executorch-xnnpack-fp32-t0"
    assert variant_for("iphone").name == "coreml-fp16-all"
    assert variant_for("iphone").load_options == {"compute_units": "all"}
    with pytest.raises(UsageError, match="expected android, iphone, linux"):
        variant_for("windows")
    with pytest.raises(UsageError, match="Core ML is Apple's"):
        variant_for("android", "coreml")


def test_the_command_tells_what_it_made_of_a_journal(finished, tmp_path):
    luts = tmp_path / "luts"
    done = bench("import", finished, "--luts", luts, "--name", "somewhere")
    assert done.returncode == 0, done.stderr
    assert str(luts / "somewhere/autovit-nano/simulated-t1/v1") in done.stdout
    again = bench("import", finished, "--luts", luts, "--name", "somewhere")
    assert again.returncode == 6
    assert len(again.stderr.splitlines()) == 1
    assert [path.name for path in (luts / "somewhere/autovit-nano/simulated-t1").iterdir()] == ["v1"]
