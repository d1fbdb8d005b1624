"""The synthetic set: its files, its objects, and that the seed decides all of it."""

import json

import numpy as np
import pytest

from search.supernet.data.sources import open_source
from tests.support.errors import raises
from tools.synthetic_coco import Placed, main, make_set


def make(folder, seed=0):
    return make_set(open_source("digits"), folder, train=3, val=2, side=64, objects=3, seed=seed)


def test_a_seed_decides_pixels_and_boxes(tmp_path):
    assert make(tmp_path / "a") == make(tmp_path / "b") != make(tmp_path / "c", seed=1)
    files = [sorted(p.relative_to(tmp_path / f) for p in (tmp_path / f).rglob("*")) for f in "ab"]
    assert files[0] == files[1]


def test_files_are_labelled_synthetic(made_coco):
    for part in ("train", "val"):
        info = json.loads((made_coco / "annotations" / f"instances_{part}.json").read_text())["info"]
        assert info["synthetic"] is True
        assert "SYNTHETIC" in info["description"]


def test_objects_do_not_overlap(tmp_path):
    make_set(open_source("digits"), tmp_path / "set", train=20, val=1, side=64, objects=4, seed=0)
    rows = json.loads((tmp_path / "set" / "annotations" / "instances_train.json").read_text())["annotations"]
    assert len(rows) > 20
    for one in rows:
        for other in (row for row in rows if row["image_id"] == one["image_id"] and row is not one):
            apart = [
                a + extent_a <= b or b + extent_b <= a
                for a, extent_a, b, extent_b in zip(
                    one["bbox"][:2], one["bbox"][2:], other["bbox"][:2], other["bbox"][2:], strict=True
                )
            ]
            assert any(apart)


def test_area_and_box_of_a_polygon():
    triangle = Placed(np.array([[1.0, 1.0], [5.0, 1.0], [1.0, 4.0]]), 1)
    assert triangle.area == 6
    assert triangle.box == (1, 1, 4, 3)


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine").touch()
    with raises("folder_not_empty"):
        make(tmp_path)


def test_the_command_prints_the_digest(tmp_path, capsys):
    main(
        [
            *["--data", "digits", "--train", "3", "--val", "2", "--side", "64", "--objects", "3", "-o"],
            str(tmp_path / "a"),
        ]
    )
    output = capsys.readouterr().out
    assert "SYNTHETIC" in output
    assert make(tmp_path / "b") in output


def test_the_command_ends_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--data", "digits", "-o", str(tmp_path / "a"), "--side", "4"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
