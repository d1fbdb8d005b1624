"""The journal of a bundle becomes the LUT that a live run would make; an edited journal is refused."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from luts.verify import verify_lut
from orchestrator.bundle.archive import PLAN, SCRIPT, agent_policy, parse_manifest
from orchestrator.bundle.journal import chained_line, read_journal
from orchestrator.cli.main import exit_code
from orchestrator.journal.runs import Run
from orchestrator.plan.plan import Policy
from orchestrator.tasks import bundle
from orchestrator.tasks.bundle import ImportCommand, import_journals, variant_for
from orchestrator.tasks.target import VariantOptions
from orchestrator.wire.messages import PROTOCOL_VERSION
from tests.support.bench import bench
from tests.support.bundle_world import OTHER, run
from tests.support.errors import raises


def test_agent_policy_has_a_spare_pass():
    live = Policy.of(simulated=False)
    assert agent_policy(live) == replace(live, self_test=False, min_passes=live.min_passes + 1)
    assert agent_policy(replace(live, max_passes=3)).max_passes == 4


def test_imported_lut_verifies(made, finished, store):
    (imported,) = import_journals(ImportCommand(journals=(finished,), store=store))
    lut = imported.lut
    assert lut.meta.measured == "simulated"
    assert lut.meta.device.name == imported.path.parts[-4]
    assert (
        imported.measurement.batches_kept + imported.measurement.batches_rejected
        == made.values["batches at most"]
    )
    assert lut.meta.policy["max_passes"] == 2
    assert lut.meta.heldout_error.mape < 0.03
    verify_lut(imported.path)


def test_two_devices_make_two_luts(made, finished, tmp_path, store):
    first, second = finished, run(Path(made.title), tmp_path, OTHER)
    with raises("already_imported"):
        import_journals(ImportCommand(journals=(first, first), store=store))
    assert not (tmp_path / "luts").exists()
    names = {
        one.lut.meta.device.name
        for one in import_journals(ImportCommand(journals=(first, second), store=store))
    }
    assert len(names) == 2
    with raises("already_imported") as refused:
        import_journals(ImportCommand(journals=(first,), store=store))
    assert exit_code(refused.value) == 6
    assert len(import_journals(ImportCommand(journals=(first,), name="second-unit", store=store))) == 1


@pytest.mark.parametrize(
    ("kind", "how", "variant"),
    [
        ("android", VariantOptions(), "executorch-xnnpack-fp32-t0"),
        ("iphone", VariantOptions(), "coreml-fp16-all"),
        ("windows", VariantOptions(), "unknown_device_kind"),
        ("android", VariantOptions(runtime="coreml"), "coreml_elsewhere"),
        ("linux", VariantOptions(runtime="onnx"), "host_runtime"),
        ("iphone", VariantOptions(threads=2), "coreml_threads"),
    ],
)
def test_variants_of_kinds_of_devices(kind, how, variant):
    if "-" in variant:
        assert variant_for(kind, how).name == variant
    else:
        with raises(variant):
            variant_for(kind, how)


def without(lines, kind):
    return [line for line in lines if f'"kind":"{kind}"' not in line]


def edit_load(change):
    def edit(lines):
        place = next(i for i, line in enumerate(lines) if '"kind":"load"' in line)
        return [*lines[:place], change(lines[place]), *lines[place + 1 :]]

    return edit


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (edit_load(lambda line: line.replace('"load_ns":5', '"load_ns":6', 1)), "edited_journal"),
        (edit_load(lambda line: ""), "edited_journal"),
        (edit_load(lambda line: line + line), "edited_journal"),
        (edit_load(lambda line: line.replace('{"chain":', '{"chain" :', 1)), "edited_journal"),
        (lambda lines: lines[1:], "not_a_journal"),
        (lambda lines: ["hello\n"], "not_a_journal"),
        (lambda lines: [chained_line("None", {"kind": "bundle"})[1].decode()], "not_a_journal"),
        (
            lambda lines: [chained_line("a", {"kind": "bundle", "bundle": "\ud800"})[1].decode()],
            "not_a_journal",
        ),
        (lambda lines: [], "not_a_journal"),
        (lambda lines: without(lines, "done"), "unfinished_bundle"),
    ],
)
def test_refused_journals(finished, tmp_path, store, edit, code):
    finished.write_text("".join(edit(finished.read_text().splitlines(keepends=True))))
    with raises(code):
        import_journals(ImportCommand(journals=(finished,), store=store))
    assert not (tmp_path / "luts").exists()


@pytest.mark.parametrize("files", [(), (SCRIPT,), (PLAN,)])
def test_a_manifest_without_plan_or_script_is_damaged(files):
    info = {"bytes": 1, "sha256": "0" * 64}
    manifest = {"format": 1, "protocol": PROTOCOL_VERSION, "device_kind": "linux"}
    parse_manifest(json.dumps({**manifest, "files": {PLAN: info, SCRIPT: info}}).encode(), Path("a"))
    with raises("invalid_file"):
        parse_manifest(json.dumps({**manifest, "files": dict.fromkeys(files, info)}).encode(), Path("a"))


def test_unfinished_last_line_does_not_count(finished, store):
    whole = finished.read_bytes()
    finished.write_bytes(whole[:-5])
    assert read_journal(finished)[1][-1].kind == "end"
    with raises("unfinished_bundle"):
        import_journals(ImportCommand(journals=(finished,), store=store))


def test_import_killed_before_its_end_gives_the_same_version(finished, store, monkeypatch):
    class LaterClock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2031, 1, 1, tzinfo=tz)

    def killed(run, result):
        raise KeyboardInterrupt

    command = ImportCommand(journals=(finished,), store=store)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "finish", killed)
        import_journals(command)
    (written,) = store.list()
    monkeypatch.setattr(bundle, "datetime", LaterClock)
    (imported,) = import_journals(command)
    assert imported.path == written.path
    assert store.list() == [written]


def test_import_command_writes_one_version(finished, tmp_path):
    luts = tmp_path / "luts"
    done = bench("import", finished, "--luts", luts, "--name", "somewhere")
    assert done.returncode == 0, done.stderr
    assert str(luts / "somewhere/autovit-nano/simulated-t1/v1") in done.stdout
    assert "ended because all 2 passes are done" in done.stderr
    again = bench("import", finished, "--luts", luts, "--name", "somewhere")
    assert again.returncode == 6
    assert len(again.stderr.splitlines()) == 1
    assert [path.name for path in (luts / "somewhere/autovit-nano/simulated-t1").iterdir()] == ["v1"]
