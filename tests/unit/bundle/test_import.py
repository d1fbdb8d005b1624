"""A bundle run by an agent alone becomes the LUT that a live run would make; an edited journal does not."""

import pytest

from luts.format.errors import InvalidArtifactError
from luts.verify import verify_lut
from orchestrator.cli.exit_codes import exit_code
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.tasks.imported import import_journals
from tests.support.bench import bench
from tests.support.bundle_world import OTHER, Ended, run


def edited(journal, change):
    """The journal with a line changed by hand."""
    lines = journal.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if '"kind":"load"' in line)
    lines[place] = change(lines[place])
    journal.write_text("".join(lines))


def test_its_lut_is_the_device_s(made, finished, tmp_path, store):
    (imported,) = import_journals([finished], store=store)
    lut = imported.lut
    assert lut.meta.measured == "simulated"
    assert lut.meta.device.name == imported.path.parts[-4]
    assert imported.measurement.batches_kept + imported.measurement.batches_rejected == made.batches
    assert lut.meta.policy["max_passes"] == 2
    assert lut.meta.heldout_error.mape < 0.03
    verify_lut(imported.path)


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
    with pytest.raises(MeasurementRejectedError, match=f"not run to its end .2 batches of {made.batches} "):
        import_journals([tmp_path / "made-up.jsonl"], store=store)


def test_the_command_tells_what_it_made_of_a_journal(finished, tmp_path):
    luts = tmp_path / "luts"
    done = bench("import", finished, "--luts", luts, "--name", "somewhere")
    assert done.returncode == 0, done.stderr
    assert str(luts / "somewhere/autovit-nano/simulated-t1/v1") in done.stdout
    assert "ended because all 2 passes are made" in done.stderr
    again = bench("import", finished, "--luts", luts, "--name", "somewhere")
    assert again.returncode == 6
    assert len(again.stderr.splitlines()) == 1
    assert [path.name for path in (luts / "somewhere/autovit-nano/simulated-t1").iterdir()] == ["v1"]
