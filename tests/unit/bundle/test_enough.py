"""A bundle is run until it is enough, by the rules that it holds, and a later start decides the same."""

import hashlib
import json
from dataclasses import replace

import pytest

from orchestrator.bundle.archive import MANIFEST
from orchestrator.bundle.journal import read_journal
from orchestrator.plan.bundled import policy_alone
from orchestrator.plan.plan import Policy
from orchestrator.tasks.imported import import_journals
from tests.support.bundle_world import NOISY, Ended, kinds, rewritten, run


def test_the_policy_is_a_live_run_s_with_a_pass_to_spare():
    live = Policy.of(simulated=False)
    assert policy_alone(live) == replace(live, self_test=False, min_passes=live.min_passes + 1)
    assert policy_alone(replace(live, max_passes=3)).max_passes == 4


def with_stop(made, **changed):
    """The bundle with as many batches again as further passes, and other rules of when it is enough."""

    def change(files):
        script, manifest = json.loads(files["script.json"]), json.loads(files[MANIFEST])
        further = [batch | {"pass_index": batch["pass_index"] + 2} for batch in script["batches"]]
        script["batches"] += further
        script["stop"] = None if changed.get("stop", ...) is None else script["stop"] | changed
        raw = json.dumps(script).encode()
        manifest["files"]["script.json"] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        files |= {"script.json": raw, MANIFEST: json.dumps(manifest).encode()}

    rewritten(made, change)
    return made


@pytest.mark.parametrize(
    ("rules", "ended", "times"),
    [
        ({"half_width": 0.5}, "narrow", 1),
        ({"half_width": 0.0, "budget_s": 0.0}, "budget", 1),
        ({"half_width": 0.0, "budget_s": 1e6}, "passes", 2),
        ({"half_width": 0.5, "min_passes": 3}, "narrow", 1.5),
        ({"stop": None}, "passes", 2),
    ],
)
def test_further_passes_are_made_until_it_is_enough(made, tmp_path, rules, ended, times):
    journal = run(with_stop(made, **rules), tmp_path, NOISY)
    assert kinds(journal).count("batch") == times * made.batches
    assert read_journal(journal)[1][-1] == {"kind": "done", "ended": ended}


def test_one_that_goes_on_later_stops_where_it_would_have_stopped(made, tmp_path, store):
    def end(said):
        if said.startswith(f"batch {made.batches} "):
            raise Ended

    narrow = with_stop(made, half_width=0.5)
    with pytest.raises(Ended):
        run(narrow, tmp_path, tell=end)
    journal = run(narrow, tmp_path)
    assert kinds(journal).count("batch") == made.batches
    (imported,) = import_journals([journal], store=store)
    assert imported.measurement.ending == "narrow"
