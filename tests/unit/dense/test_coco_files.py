"""COCO's layout: what is read, and that each kind of bad file ends in one line that names the row."""

import json

import numpy as np
import pytest
from PIL import Image

from luts.format.errors import InvalidArtifactError, UsageError
from search.dense.data import open_scenes
from search.dense.scenes import VOID

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
    "box outside": (first("annotations", bbox=[60, 0, 10, 4]), r"1 has the box \[60, 0, 10, 4\], outside"),
    "negative box": (first("annotations", bbox=[4, 4, -2, 4]), "outside of image"),
    "no category": (first("annotations", category_id=99), "annotation 1 has category 99, which the file does not"),
    "no image": (first("annotations", image_id=99), "annotation 1 is of image 99"),
    "mask of another size": (
        first("annotations", segmentation={"size": [32, 64], "counts": [2048]}),
        "mask of 64x32 for an image of 64x64",
    ),
    "run lengths": (first("annotations", segmentation={"size": [64, 64], "counts": [7]}), "do not make 64x64"),
    "short polygon": (first("annotations", segmentation=[[1, 1, 2, 2]]), "under three points"),
    "not a number": (first("annotations", bbox=[0, 0, "wide", 1]), "'wide' in the place of a number"),
    "way out": (first("images", file_name="../secret.png"), "leads out of its folder"),
    "huge": (first("images", height=10**9), "at most 16384 pixels"),
    "no area": (first("annotations", area=-1), "area -1"),
    "twice": (lambda d: d["annotations"].append(d["annotations"][0]), "annotation 1 comes twice"),
    "two of a name": (lambda d: d["categories"].append({"id": 77, "name": "3"}), "two of one number or name"),
    "without list": (lambda d: d.pop("annotations"), "no list of annotations"),
    "row without box": (lambda d: d["annotations"][0].pop("bbox"), "lacks 'bbox'"),
    "no images": (lambda d: d.update(images=[], annotations=[]), "it has no images"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_ends_in_one_line(edit_coco, case):
    change, said = WRONG[case]
    with pytest.raises(InvalidArtifactError, match=said) as error:
        open_scenes(edit_coco(change), "detection")
    assert "instances_train.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_not_json(coco):
    (coco / "annotations" / "instances_val.json").write_text("{")
    with pytest.raises(InvalidArtifactError, match="not JSON"):
        open_scenes(f"coco:{coco}", "detection")


def test_run_lengths_that_lead_nowhere(edit_coco):
    def damage(document):
        document["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": "]]]]]]]]]]]]"}

    scenes = open_scenes(edit_coco(damage), "segmentation")
    with pytest.raises(
        InvalidArtifactError, match=r"train/000001.png: annotation 1 has a mask that can't be"
    ):
        scenes.mask(0)


def test_a_missing_image(coco):
    (coco / "train" / "000002.png").unlink()
    with pytest.raises(InvalidArtifactError, match=r"000002.png: the annotations name it"):
        open_scenes(f"coco:{coco}", "detection")


def test_an_image_of_another_size(coco):
    Image.new("RGB", (32, 64)).save(coco / "train" / "000001.png")
    with pytest.raises(InvalidArtifactError, match="is 32x64, its annotations are for 64x64"):
        open_scenes(f"coco:{coco}", "detection").image(0)


def test_categories_of_another_training_file(edit_coco):
    text = edit_coco(lambda d: d["categories"].append({"id": 50, "name": "zebra"}), "val")
    with pytest.raises(
        InvalidArtifactError, match=r"categories are not those of instances_train.json.*'zebra'"
    ):
        open_scenes(text, "detection")


def test_classes_that_a_head_has_not(made_coco):
    scenes = open_scenes(f"coco:{made_coco}", "detection")
    with pytest.raises(UsageError, match="'2' is not one of the 2 of the head"):
        scenes.check_classes(("0", "1"))
    scenes.check_classes(scenes.classes)
    with pytest.raises(UsageError, match="another order"):
        scenes.check_classes(scenes.classes[::-1])


@pytest.mark.parametrize(("text", "said"), [
    ("digits", "use coco:DIR or voc:DIR"),
    ("coco:", "use coco:DIR"),
    ("coco:/nowhere/at/all", "is not a folder"),
    ("voc:.", "give the folder in which VOC was unpacked"),
    ("coco:.", "instances_val"),
])  # fmt: skip
def test_a_text_that_names_no_set(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        open_scenes(text, "detection")
