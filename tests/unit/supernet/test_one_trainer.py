"""Two trainings in one folder: the second is refused, and nothing of the first is touched."""

import errno
import fcntl

import pytest

from search.spaces import get_space
from search.supernet.recipe.recipe import Recipe
from search.supernet.train.checkpoint import BusyFolderError, only_training
from search.supernet.train.trainer import Trainer


@pytest.fixture(scope="module")
def small(few_digits):
    return few_digits(32)


def trainer(small, folder):
    recipe = Recipe(name="short", epochs=1, batch_size=16, learning_rate=1e-3, warmup_epochs=0)
    return Trainer(get_space("autovit-nano"), small, recipe, folder)


def test_a_second_training_is_refused_and_may_begin_once_the_first_has_ended(small, tmp_path):
    folder = tmp_path / "run"
    with only_training(folder):
        with pytest.raises(
            BusyFolderError, match="another process trains in .*run; wait for it, stop it, or"
        ):
            trainer(small, folder).run()
        assert not list(folder.iterdir())
    assert trainer(small, folder).run().finished


def test_a_training_holds_its_folder_until_it_is_stopped(small, tmp_path):
    def stop(_progress):
        with pytest.raises(BusyFolderError), only_training(tmp_path):
            pass
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        trainer(small, tmp_path).run(stop)
    with only_training(tmp_path):
        pass


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with only_training(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
