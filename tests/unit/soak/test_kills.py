"""A killed import is clean; a journal that loses its last line when it is opened again is not."""

import pytest

from tests.soak import killed_runs, kills
from tests.soak.killed_runs import Moment, Timeline
from tests.soak.kills import KilledImport, KilledProfile

pytestmark = pytest.mark.slow

FORGETFUL = """
from luts.format.files import AppendFile

opened = AppendFile.__init__

def forgetting(self, path, *arguments, **options):
    if path.name == "journal.jsonl" and path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]))
    opened(self, path, *arguments, **options)

AppendFile.__init__ = forgetting
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_killed_import_loses_nothing(tmp_path, home):
    outcome = KilledImport("import", 1, tmp_path / "cache").run(0, home)
    assert outcome.tries >= 1
    assert outcome.clean, outcome.detail


def test_a_journal_that_forgets_its_last_line_is_noticed(tmp_path, home, monkeypatch):
    monkeypatch.setattr(kills, "KILLS", {1: 1})
    monkeypatch.setattr(killed_runs, "CHILD_SHARE", 0.0)
    monkeypatch.setattr(
        Timeline, "draw", lambda line, *_: Moment(line.changes[len(line.changes) // 2][1], 0.0)
    )
    plugin = tmp_path / "forgetful.py"
    plugin.write_text(FORGETFUL)
    variables = {"BLOCKTIME_IMPORT": str(plugin)}
    outcome = KilledProfile("profile", 1, tmp_path / "cache", variables).run(1, home)
    assert outcome.tries == 1
    assert outcome.lost >= 1
