"""VOC's layout: what is read, and that each kind of bad file ends in one line that names it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from luts.format.errors import InvalidArtifactError, UsageError
from search.dense.data import open_scenes
from search.dense.scenes import VOID

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


def test_an_image_without_annotation(voc):
    (voc / "Annotations" / "2012_2.xml").unlink()
    (voc / "SegmentationClass" / "2012_3.png").unlink()
    with pytest.raises(InvalidArtifactError, match=r"2012_2.xml: the annotations name it"):
        open_scenes(f"voc:{voc}", "detection")
    with pytest.raises(InvalidArtifactError, match=r"2012_3.png: the annotations name it"):
        open_scenes(f"voc:{voc}", "segmentation")


WRONG: dict[str, Any] = {
    "box outside": ({"right": 25}, r"the box \[1, 1, 25, 10\] lies outside of its image, 20x10"),
    "no category": ({"label": "unicorn"}, "'unicorn' is not one of VOC's 20 categories"),
    "no number": ({"left": "far"}, "could not convert"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_annotation_ends_in_one_line(voc, case):
    values, said = WRONG[case]
    write_xml(voc, "2012_2", **values)
    with pytest.raises(InvalidArtifactError, match=said) as error:
        open_scenes(f"voc:{voc}", "detection")
    assert "2012_2.xml" in str(error.value)
    assert "\n" not in str(error.value)


def test_entities_are_refused(voc):
    (voc / "Annotations" / "2012_1.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>')
    with pytest.raises(InvalidArtifactError, match="entities"):
        open_scenes(f"voc:{voc}", "detection")


def test_a_mask_of_another_size(voc):
    Image.new("P", (10, 20)).save(voc / "SegmentationClass" / "2012_2.png")
    with pytest.raises(InvalidArtifactError, match=r"2012_2.png is a mask of 10x20 for an image of 20x10"):
        open_scenes(f"voc:{voc}", "segmentation")


def test_a_mask_of_other_labels(voc):
    paletted(np.full((10, 20), 40, np.uint8)).save(voc / "SegmentationClass" / "2012_2.png")
    with pytest.raises(InvalidArtifactError, match=r"2012_2.png: not a mask of VOC's 20 categories"):
        open_scenes(f"voc:{voc}", "segmentation").mask(1)


def test_several_years(voc):
    (voc.parent / "VOC2007").mkdir()
    with pytest.raises(UsageError, match="several years"):
        open_scenes(f"voc:{voc.parent.parent}", "detection")


def test_a_list_that_leads_elsewhere(voc):
    (voc / "ImageSets" / "Main" / "val.txt").write_text("../../secret\n")
    with pytest.raises(InvalidArtifactError, match="a list names the image"):
        open_scenes(f"voc:{voc}", "detection")
