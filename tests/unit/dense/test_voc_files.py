"""VOC's layout: what is read, and that each kind of bad file ends in one line that names it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.dense.data import open_scenes
from search.dense.scenes import VOID
from tests.support.errors import raises

XML = """<annotation><filename>{name}.jpg</filename><size><width>20</width><height>10</height></size>
<object><name>{label}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{left}</xmin><ymin>1</ymin><xmax>{right}</xmax><ymax>10</ymax></bndbox></object></annotation>"""


def paletted(mask):
    """Labels as VOC's files have them: indices into a palette."""
    image = Image.fromarray(mask)
    image.putpalette(list(range(256)) * 3)
    return image


def write_xml(voc, name, label="dog", left=1, right=20, difficult=0):
    text = XML.format(name=name, label=label, left=left, right=right, difficult=difficult)
    (voc / "Annotations" / f"{name}.xml").write_text(text)


@pytest.fixture
def voc(tmp_path):
    """Two training images and one for validation."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in (
        "Annotations",
        "JPEGImages",
        "SegmentationClass",
        "ImageSets/Main",
        "ImageSets/Segmentation",
    ):
        (root / folder).mkdir(parents=True)
    for name in ("2012_1", "2012_2", "2012_3"):
        Image.new("RGB", (20, 10), (9, 9, 9)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((10, 20), np.uint8)
        mask[:, :10], mask[:, 10] = 12, VOID
        paletted(mask).save(root / "SegmentationClass" / f"{name}.png")
        write_xml(root, name)
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind / "train.txt").write_text("2012_1\n2012_2\n")
        (root / "ImageSets" / kind / "val.txt").write_text("2012_3\n")
    return root


def test_boxes_are_read(voc):
    write_xml(voc, "2012_2", "person", 5, 6, difficult=1)
    for text in (f"voc:{voc.parent.parent}", f"voc:{voc}"):
        scenes = open_scenes(text, "detection")
        assert (scenes.train.tolist(), scenes.validation.tolist()) == ([0, 1], [2])
        assert scenes.objects(0).boxes.tolist() == [[0, 0, 20, 10]]
        assert scenes.classes[scenes.objects(0).labels[0] - 1] == "dog"
        assert scenes.objects(1).boxes.tolist() == [[4, 0, 6, 10]]
        assert scenes.objects(1).ignored.tolist() == [True]
        assert scenes.image(2).shape == (10, 20, 3)
    assert not scenes.synthetic


def test_masks_are_read(voc):
    scenes = open_scenes(f"voc:{voc}", "segmentation")
    assert np.unique(scenes.mask(0)).tolist() == [0, 12, VOID]
    assert scenes.classes[12 - 1] == "dog"


def remove(*path):
    return lambda voc: voc.joinpath(*path).unlink()


def entities(voc):
    (voc / "Annotations" / "2012_1.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>')


def other_mask(image):
    return lambda voc: image.save(voc / "SegmentationClass" / "2012_2.png")


REFUSED: dict[str, Any] = {
    "no annotation": (remove("Annotations", "2012_2.xml"), "detection", "damaged_image"),
    "no mask": (remove("SegmentationClass", "2012_3.png"), "segmentation", "damaged_image"),
    "box outside": (lambda voc: write_xml(voc, "2012_2", right=25), "detection", "invalid_annotations"),
    "no category": (
        lambda voc: write_xml(voc, "2012_2", label="unicorn"),
        "detection",
        "invalid_annotations",
    ),
    "no number": (lambda voc: write_xml(voc, "2012_2", left="far"), "detection", "invalid_annotations"),
    "entities": (entities, "detection", "invalid_annotations"),
    "mask of another size": (other_mask(Image.new("P", (10, 20))), "segmentation", "image_size_mismatch"),
    "mask of other labels": (
        other_mask(paletted(np.full((10, 20), 40, np.uint8))),
        "segmentation",
        "invalid_annotations",
    ),
    "list that leads elsewhere": (
        lambda voc: (voc / "ImageSets" / "Main" / "val.txt").write_text("../../secret\n"),
        "detection",
        "invalid_annotations",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_in_one_line(voc, case):
    change, task, code = REFUSED[case]
    change(voc)
    with raises(code):
        open_scenes(f"voc:{voc}", task).mask(1)


def test_several_years(voc):
    (voc.parent / "VOC2007").mkdir()
    with raises("wrong_layout"):
        open_scenes(f"voc:{voc.parent.parent}", "detection")
