"""What runs a bundle goes on where it was ended, and waits for a device that is hot or locked."""

import pytest

from orchestrator.bundle import player
from orchestrator.bundle.archive import open_bundle
from orchestrator.bundle.journal import read_journal
from orchestrator.bundle.loopback import Loopback
from orchestrator.tasks.imported import import_journals
from tests.support.bundle_world import Ended, kinds, run


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
    assert told.count("waiting, unlock it") == 2, "one that waits is seen to be alive"
    assert slept == [10.0, 10.0]
