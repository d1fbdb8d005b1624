"""A small synthetic set in COCO's layout, made once, and copies of it to damage."""

import json
import shutil

import pytest

from search.supernet.data.sources import open_source
from tools.synthetic_coco import make_set


@pytest.fixture(scope="session")
def made_coco(tmp_path_factory):
    """Six training and three validation canvases of 64 pixels with digits on them; nobody may write into it."""
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    make_set(open_source("digits"), folder, train=6, val=3, side=64, objects=2, seed=0)
    return folder


@pytest.fixture
def coco(made_coco, tmp_path):
    return shutil.copytree(made_coco, tmp_path / "set")


@pytest.fixture
def edit_coco(coco):
    """Change the document of a part in place."""

    def edit(change, part="train"):
        path = coco / "annotations" / f"instances_{part}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        return f"coco:{coco}"

    return edit
