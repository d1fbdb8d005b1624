"""Sources of images, their splits and batches; damaged and missing input is refused by code."""

import hashlib
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.supernet.data import sources as cifar10
from search.supernet.data.images import MEAN, STD, ImageData, split_source
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import Augmentation
from search.supernet.recipe.schedule import Part
from tests.support.errors import raises


def _jpeg(shade, side=16, wide=0):
    image = Image.new("RGB", (side + wide, side), (shade, 255 - shade, 7))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _npz(path, count=40, **changes):
    files = [_jpeg(5 * i) for i in range(count)]
    arrays = {
        "blob": np.frombuffer(b"".join(files), np.uint8),
        "off": np.cumsum([0, *map(len, files)]),
        "y": np.arange(count) % 2,
    } | changes
    np.savez(path, **arrays)
    return f"npz:{path}"


def _folder(root, classes=("cat", "dog"), count=12):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(_jpeg(10 * i, wide=i))
    return f"imagefolder:{root}"


def test_digits_need_no_files():
    source = open_source("digits")
    assert (len(source.labels), len(source.classes), source.side, source.flips) == (1797, 10, 8, False)
    assert source.image(0).shape == (8, 8, 3)


def test_split_is_disjoint_stratified_and_fixed():
    source = open_source("digits")
    split = split_source(source, seed=0)
    again, other = split_source(source, seed=0), split_source(source, seed=1)
    every = np.concatenate([split.train, split.search, split.validation])
    assert sorted(every) == list(range(1797))
    assert np.array_equal(split.search, again.search)
    assert not np.array_equal(split.search, other.search)
    for part in (split.search, split.validation):
        counts = np.bincount(source.labels[part], minlength=10)
        assert counts.min() >= 17
        assert counts.max() <= 19


def test_npz_gives_its_images_in_order(tmp_path):
    source = open_source(_npz(tmp_path / "a.npz"))
    assert source.side == 16
    assert [int(source.image(i)[0, 0, 0]) for i in (0, 7, 39)] == [0, 35, 195]
    assert list(source.labels[:4]) == [0, 1, 0, 1]
    assert source.digest == open_source(f"npz:{tmp_path}/a.npz").digest
    changed = open_source(_npz(tmp_path / "b.npz", y=np.arange(40) % 4))
    assert changed.digest != source.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"off": np.arange(5)},
        {"off": np.arange(41) * 10**9},
        {"off": np.arange(41)[::-1].copy()},
        {"y": np.full(40, -1)},
        {"y": np.full(40, 10**7)},
        {"y": np.linspace(0, 1, 40)},
        {"blob": np.zeros((4, 4), np.uint8)},
        {"y": np.array([{"a": 1}] * 40, dtype=object)},
    ],
)
def test_inconsistent_npz_is_refused(tmp_path, changes):
    with raises("damaged_images_file"):
        open_source(_npz(tmp_path / "a.npz", **changes))


def test_truncated_and_foreign_npz_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    _npz(path)
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", pickle.dumps([1, 2]), b"PK\x03\x04nonsense"):
        path.write_bytes(damage)
        with raises("damaged_images_file"):
            open_source(f"npz:{path}")


def test_npz_that_unpacks_to_far_more_or_holds_objects_is_refused(tmp_path):
    with np.load(tmp_path / _npz(tmp_path / "a.npz").rpartition("/")[2]) as file:
        arrays = {key: file[key] for key in file}
    bomb, pickled = tmp_path / "bomb.npz", tmp_path / "pickled.npz"
    np.savez_compressed(bomb, **arrays | {"padding": np.zeros(1_000_000, np.uint8)})
    np.savez(pickled, **arrays | {"blob": np.array([object], dtype=object)})
    for path in (bomb, pickled):
        with raises("damaged_images_file"):
            open_source(f"npz:{path}")


def test_corrupt_image_is_named(tmp_path):
    text = _npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = {key: file[key].copy() for key in file}
    start, end = arrays["off"][5:7]
    arrays["blob"][start + 20 : end] = 0
    np.savez(tmp_path / "a.npz", **arrays)
    data = ImageData(open_source(text))
    with raises("damaged_image") as caught:
        data.batch(np.arange(40), 16)
    assert "image 5 " in str(caught.value)


def test_folder_of_images_of_any_shape(tmp_path):
    data = ImageData(open_source(_folder(tmp_path / "pets")), largest_side=32)
    assert data.source.classes == ("cat", "dog")
    images, labels = data.batch(np.array([0, 11, 12]), 24)
    assert images.shape == (3, 3, 24, 24)
    assert labels.tolist() == [0, 0, 1]


def test_folder_with_its_own_validation_set_keeps_it(tmp_path):
    _folder(tmp_path / "pets" / "train")
    text = _folder(tmp_path / "pets" / "val", count=3)
    source = open_source(text.removesuffix("/val"))
    split = split_source(source)
    assert list(split.validation) == list(range(24, 30))
    assert max(split.train.max(), split.search.max()) < 24
    (tmp_path / "pets" / "val" / "emu").mkdir()
    with raises("class_mismatch"):
        open_source(text.removesuffix("/val"))


def test_bad_folders_are_named(tmp_path):
    text = _folder(tmp_path / "pets")
    (tmp_path / "pets" / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    for where, code in ((text, "empty_class"), (f"imagefolder:{tmp_path}/bare", "wrong_layout")):
        with raises(code):
            open_source(where)
    (tmp_path / "pets" / "empty").rmdir()
    link = tmp_path / "pets" / "cat" / "gone.png"
    link.symlink_to(tmp_path / "nowhere.png")
    with raises("damaged_image") as gone:
        open_source(text)
    assert "cat/gone.png" in str(gone.value)
    link.unlink()
    (tmp_path / "pets" / "dog" / "4.png").write_bytes(b"\x89PNG nonsense")
    with raises("damaged_image") as damaged:
        ImageData(open_source(text)).batch(np.arange(24), 16)
    assert "dog/4.png" in str(damaged.value)


def test_decompression_bomb_is_refused(tmp_path):
    text = _folder(tmp_path / "pets")
    Image.new("1", (9000, 9000)).save(tmp_path / "pets" / "cat" / "0.png")
    with raises("file_too_large"):
        open_source(text).image(0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("imagenet", "unknown_source"),
        ("npz:", "unknown_source"),
        ("http://a", "unknown_source"),
        ("npz:/nowhere.npz", "no_such_path"),
        ("imagefolder:/nowhere", "no_such_path"),
    ],
)
def test_unknown_and_missing_sources_are_usage_errors(text, code):
    with raises(code):
        open_source(text)


def test_class_too_small_to_split_is_named(tmp_path):
    text = _folder(tmp_path / "pets", count=2)
    with raises("too_few_images"):
        _ = ImageData(open_source(text)).split


def test_batches_are_normalised_and_resized(tmp_path):
    data = ImageData(open_source(_npz(tmp_path / "a.npz")))
    images, _ = data.batch(np.array([20]), 24)
    expected = (torch.tensor([100 / 255, 155 / 255, 7 / 255]) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(images, expected[None, :, None, None].expand(1, 3, 24, 24))


def test_augmentation_follows_its_generator_and_spares_digits_from_flips():
    data = ImageData(open_source("digits"))
    indices = data.split.train[:16]

    def batch(seed):
        return data.training_batch(Part(indices, 32, seed), Augmentation())[0]

    assert torch.equal(batch(1), batch(1))
    assert not torch.equal(batch(1), batch(2))
    plain = data.batch(indices, 8)[0]
    moved = data.training_batch(Part(indices, 8, 1), Augmentation())[0]
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    for before, after in zip(plain, moved, strict=True):
        inner = after[:, 1:-1, 1:-1]
        assert any(torch.equal(inner, before[:, 1 + y : 7 + y, 1 + x : 7 + x]) for y, x in shifts)


def test_shared_cifar10_reads_whole():
    shared = Path(os.environ.get("BLOCKTIME_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    path = shared / "cifar10_jpeg.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there; set BLOCKTIME_SHARED_DATA to the directory of cifar10_jpeg.npz")
    data = ImageData(open_source(f"npz:{path}"))
    assert (len(data.source.labels), data.classes, data.side) == (60_000, 10, 32)
    assert (len(data.split.train), len(data.split.search), len(data.split.validation)) == (
        48_000,
        6_000,
        6_000,
    )
    assert data.batch(data.split.search[:8], 64)[0].shape == (8, 3, 64, 64)


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
