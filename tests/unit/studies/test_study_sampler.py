"""The study of MobileViT's multi-scale sampler, in its quick form."""

import re
from dataclasses import replace

import numpy as np
import pytest

from luts.format.errors import UsageError
from search.spaces import get_arch
from tools.studies._options import Options
from tools.studies._supernets import open_images
from tools.studies.sampler import _schedule, _ways, main


def options(tmp_path, quick):
    return Options(None, quick, 1, 1, 1, "host", 1.0, tmp_path)


def test_its_table_has_the_three_ways_of_drawing_sizes(tmp_path):
    section = main(options(tmp_path, quick=True))
    rows = re.findall(r"^\| ([a-z0-9, ]+) \| ([0-9.]+) \| ([0-9.]+) \(", section, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["256 px alone", "sizes dealt out", "sizes drawn, as the paper"]
    assert all(0 <= float(accuracy) <= 100 for _, _, accuracy in rows)


def test_ways_of_drawing_sizes_have_equal_steps_and_images(tmp_path):
    images = open_images("digits")
    images.split = replace(images.split, train=np.arange(45_000))
    arch = get_arch("mobilevit-xxs").with_classes(images.classes)
    schedules = [
        _schedule(recipe, images) for recipe in _ways(arch, images, options(tmp_path, quick=False)).values()
    ]
    steps = [schedule.steps for schedule in schedules]
    seen = [sum(schedule.images(step) for step in range(schedule.steps)) for schedule in schedules]
    assert max(steps) < 1.01 * min(steps)
    assert max(seen) < 1.05 * min(seen)  # drawn sizes scatter about their mean


def test_without_images_it_says_so(tmp_path):
    with pytest.raises(UsageError, match="give --data, such as cifar10:FILE.npz, or --quick"):
        main(options(tmp_path, quick=False))
