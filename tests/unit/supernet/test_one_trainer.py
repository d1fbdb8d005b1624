"""Two trainings in one folder: the second is refused, and nothing of the first is touched."""

import errno

import pytest
from filelock import FileLock

from search.spaces import get_space
from search.supernet.train.parallel import FolderBusyError, exclusive_folder
from tests.support.errors import raises
from tests.support.training import TINY, supernet_trainer


def trainer(small, folder):
    return supernet_trainer(get_space("autovit-nano"), small, TINY, folder)


def test_a_second_training_is_refused_and_may_begin_once_the_first_has_ended(small, tmp_path):
    folder = tmp_path / "run"
    with exclusive_folder(folder):
        with raises("folder_busy"):
            trainer(small, folder).run()
        assert [path.name for path in folder.iterdir()] == [".training.lock"]
    assert trainer(small, folder).run().finished


def test_a_training_holds_its_folder_until_it_is_stopped(small, tmp_path):
    def stop(_progress):
        with pytest.raises(FolderBusyError), exclusive_folder(tmp_path):
            pass
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        trainer(small, tmp_path).run(stop)
    with exclusive_folder(tmp_path):
        pass


def test_a_file_system_without_locks_is_allowed(tmp_path, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    with exclusive_folder(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
