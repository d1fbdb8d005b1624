"""The study of MobileViT's multi-scale sampler, in its quick form."""

import re

import pytest

from luts.format.errors import UsageError
from tools.studies._options import Options
from tools.studies.sampler import main


def options(tmp_path, quick):
    return Options(None, quick, 1, 1, 1, "host", 1.0, tmp_path)


def test_its_table_has_the_three_ways_of_drawing_sizes(tmp_path):
    section = main(options(tmp_path, quick=True))
    rows = re.findall(r"^\| ([a-z0-9, ]+) \| ([0-9.]+) \(", section, re.MULTILINE)
    assert [name for name, _ in rows] == ["256 px alone", "sizes dealt out", "sizes drawn, as the paper"]
    assert all(0 <= float(accuracy) <= 100 for _, accuracy in rows)


def test_without_images_it_says_so(tmp_path):
    with pytest.raises(UsageError, match="give --data, such as cifar10:FILE.npz, or --quick"):
        main(options(tmp_path, quick=False))
