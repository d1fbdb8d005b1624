"""COCO's layout: what is read, and that each kind of bad file ends in one line that names the row."""

import json

import numpy as np
import pytest
from PIL import Image

from search.dense.data import open_scenes
from search.dense.scenes import VOID
from tests.support.errors import raises

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")


def test_a_set_is_read(made_coco):
    scenes = open_scenes(f"coco:{made_coco}", "detection")
    rows = json.loads((made_coco / "annotations" / "instances_val.json").read_text())["annotations"]
    first = [row for row in rows if row["image_id"] == 1]
    objects = scenes.objects(6)
    assert (len(scenes.train), scenes.validation.tolist(), scenes.classes[3]) == (6, [6, 7, 8], "3")
    assert scenes.names[6] == "val/000001.png"
    assert scenes.synthetic
    assert "SYNTHETIC" in scenes.title
    assert scenes.image(6).shape == (64, 64, 3)
    corners = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in first)]
    np.testing.assert_allclose(objects.boxes, corners, rtol=1e-6)
    assert objects.labels.tolist() == [row["category_id"] for row in first]
    assert not objects.ignored.any()


def polygons(document):
    """One image of 10 x 8 pixels' worth: two squares that overlap, and a crowd."""
    document["images"] = document["images"][:1]
    document["annotations"] = [
        {"id": n, "image_id": 1, "category_id": c, "bbox": [x, y, 4, 4], "area": 16, "iscrowd": 0,
         "segmentation": [[x, y, x + 4, y, x + 4, y + 4, x, y + 4]]}
        for n, (c, x, y) in enumerate([(2, 0, 0), (3, 2, 0)], 1)
    ]  # fmt: skip
    counts = [64 * 60, 64, 64 * 3]  # the column x = 60
    document["annotations"].append(
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [60, 0, 1, 64], "area": 64, "iscrowd": 1,
         "segmentation": {"size": [64, 64], "counts": counts}}
    )  # fmt: skip


def test_masks_of_polygons_and_run_lengths(edit_coco):
    scenes = open_scenes(edit_coco(polygons), "segmentation")
    mask = scenes.mask(0)
    expected = np.zeros((64, 64), np.uint8)
    expected[:4, :2], expected[:4, 2:4], expected[:4, 4:6], expected[:, 60] = 2, VOID, 3, VOID
    np.testing.assert_array_equal(mask, expected)
    assert scenes.objects(0).ignored.tolist() == [False, False, True]


def test_images_without_objects_are_counted_and_left_out(edit_coco):
    def drop(document):
        document["annotations"] = [row for row in document["annotations"] if row["image_id"] != 2]

    scenes = open_scenes(edit_coco(drop), "detection")
    assert scenes.empty == 1
    assert scenes.train.tolist() == [0, 2, 3, 4, 5]


def first(name, **values):
    return lambda document: document[name][0].update(values)


WRONG = {
    "box outside": first("annotations", bbox=[60, 0, 10, 4]),
    "negative box": first("annotations", bbox=[4, 4, -2, 4]),
    "no category": first("annotations", category_id=99),
    "no image": first("annotations", image_id=99),
    "mask of another size": first("annotations", segmentation={"size": [32, 64], "counts": [2048]}),
    "run lengths": first("annotations", segmentation={"size": [64, 64], "counts": [7]}),
    "short polygon": first("annotations", segmentation=[[1, 1, 2, 2]]),
    "not a number": first("annotations", bbox=[0, 0, "wide", 1]),
    "leads out of the folder": first("images", file_name="../secret.png"),
    "huge": first("images", height=10**9),
    "negative area": first("annotations", area=-1),
    "annotation twice": lambda d: d["annotations"].append(d["annotations"][0]),
    "two categories of a name": lambda d: d["categories"].append({"id": 77, "name": "3"}),
    "no list of annotations": lambda d: d.pop("annotations"),
    "row without box": lambda d: d["annotations"][0].pop("bbox"),
    "no images": lambda d: d.update(images=[], annotations=[]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_in_one_line(edit_coco, case):
    with raises("invalid_annotations") as error:
        open_scenes(edit_coco(WRONG[case]), "detection")
    assert "instances_train.json" in str(error.value)


def test_not_json(coco):
    (coco / "annotations" / "instances_val.json").write_text("{")
    with raises("invalid_annotations"):
        open_scenes(f"coco:{coco}", "detection")


def test_run_lengths_that_lead_nowhere(edit_coco):
    def damage(document):
        document["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": "]]]]]]]]]]]]"}

    scenes = open_scenes(edit_coco(damage), "segmentation")
    with raises("invalid_annotations"):
        scenes.mask(0)


def test_a_missing_image(coco):
    (coco / "train" / "000002.png").unlink()
    with raises("damaged_image"):
        open_scenes(f"coco:{coco}", "detection")


def test_an_image_of_another_size(coco):
    Image.new("RGB", (32, 64)).save(coco / "train" / "000001.png")
    with raises("image_size_mismatch"):
        open_scenes(f"coco:{coco}", "detection").image(0)


def test_categories_of_another_training_file(edit_coco):
    text = edit_coco(lambda d: d["categories"].append({"id": 50, "name": "zebra"}), "val")
    with raises("class_mismatch"):
        open_scenes(text, "detection")


def test_classes_that_a_head_has_not(made_coco):
    scenes = open_scenes(f"coco:{made_coco}", "detection")
    with raises("class_mismatch"):
        scenes.check_classes(("0", "1"))
    scenes.check_classes(scenes.classes)
    with raises("class_mismatch"):
        scenes.check_classes(scenes.classes[::-1])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("digits", "unknown_source"),
        ("coco:", "unknown_source"),
        ("coco:/nowhere/at/all", "no_such_path"),
        ("voc:.", "wrong_layout"),
        ("coco:.", "wrong_layout"),
    ],
)
def test_a_text_that_names_no_set(text, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with raises(code):
        open_scenes(text, "detection")
