"""CIFAR-10's batches, which are pickles of Python 2, read without running anything that they name."""

import hashlib
import pickle
import struct

import numpy as np
import pytest

from search.supernet.data import sources as cifar10
from search.supernet.data.images import split_source
from search.supernet.data.sources import open_source
from tests.support.errors import raises


def batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """As cPickle of Python 2 wrote the originals, opcode for opcode."""
    rows, columns = pixels.shape
    return b"".join(
        (
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x04testq\x03U\x06labelsq\x04]q\x05(",
            *(b"K" + bytes([label]) for label in labels),
            b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t(K\x01",
            b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns),
            b"\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb",
            b"U\tfilenamesq\x0c]q\r(U\x05a.pngq\x0er\x10\x01\x00\x00h\x0eeu.",
        )
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six small batches whose MD5s stand in for those of the originals."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    sums = {}
    for number, name in enumerate(cifar10.BATCHES):
        pixels = np.full((20, 3072), 40 * number, np.uint8)
        pixels[:, 1024:] += 1
        pixels[:, 33] = 7
        data = batch(pixels, [i % 10 for i in range(20)])
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(cifar10, "BATCHES", sums)
    return folder


def test_images_labels_and_the_test_set_are_where_they_were(folder):
    source = open_source(f"cifar10:{folder.parent}")
    assert (source.classes[0], source.classes[9]) == ("airplane", "truck")
    assert (source.side, source.validation_from) == (32, 100)
    assert [source.image(i)[0, 0].tolist() for i in (0, 20, 119)] == [
        [0, 1, 1],
        [40, 41, 41],
        [200, 201, 201],
    ]
    assert source.image(0)[1, 1].tolist() == [7, 1, 1]
    assert source.labels[38:42].tolist() == [8, 9, 0, 1]
    assert list(split_source(source).validation) == list(range(100, 120))


def test_a_damaged_or_missing_batch_is_named(folder):
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:-1])
    with raises("damaged_images_file"):
        open_source(f"cifar10:{folder.parent}")
    (folder / "data_batch_2").unlink()
    with raises("damaged_images_file"):
        open_source(f"cifar10:{folder.parent}")


def attack(made: str) -> bytes:
    """A batch whose pixels are what `os.mkdir` returns."""
    call = b"cposix\nmkdir\nU" + bytes([len(made)]) + made.encode() + b"\x85R"
    whole = batch(np.zeros((1, 3072), np.uint8), [0])
    begin, end = whole.index(b"cnumpy.core"), whole.index(b"U\tfilenames")
    return whole[:begin] + call + whole[end:]


def test_what_a_pickle_calls_is_not_called(folder, monkeypatch):
    monkeypatch.chdir(folder)
    pickle.loads(attack("unpickled"))  # noqa: S301
    assert (folder / "unpickled").exists()
    data = attack("read")
    (folder / "data_batch_1").write_bytes(data)
    monkeypatch.setitem(cifar10.BATCHES, "data_batch_1", hashlib.md5(data).hexdigest())
    with raises("damaged_images_file") as caught:
        open_source(f"cifar10:{folder.parent}")
    assert "posix.mkdir" in str(caught.value)
    assert not (folder / "read").exists()
