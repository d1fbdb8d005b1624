"""One thread: these networks are too small for more, and threads wait for each other on a busy machine."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from search.spaces import get_space
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.train.teacher import Teacher
from tests.support.training import TINY, supernet_trainer


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits():
    """All of scikit-learn's digits, 8 x 8 pixels."""
    return ImageData(open_source("digits"))


@pytest.fixture(scope="session")
def few_digits(digits):
    """Makes data of as many training images as asked for, 16 to search on, and all for a final evaluation."""

    def few(train):
        data = ImageData(digits.source)
        data.split = dataclasses.replace(
            data.split, train=data.split.train[:train], search=data.split.search[:16]
        )
        return data

    return few


@pytest.fixture(scope="session")
def small(few_digits):
    """Thirty-two training images."""
    return few_digits(32)


@pytest.fixture(scope="session")
def tiny_run(small, tmp_path_factory):
    """The folder of a supernet trained by `TINY`; nobody may write into it."""
    directory = tmp_path_factory.mktemp("run")
    supernet_trainer(get_space("autovit-nano"), small, TINY, directory).run()
    return directory


class _Oracle(nn.Module):
    """Knows the labels of given images by their pixels."""

    def __init__(self, data):
        super().__init__()
        images, labels = data.batch(np.arange(len(data.labels)), 8)
        self.images, self.labels = images.flatten(1), labels.clone()

    def forward(self, x):
        nearest = torch.cdist(x.flatten(1), self.images).argmin(1)
        return nn.functional.one_hot(self.labels[nearest], 10).float()


@pytest.fixture(scope="session")
def oracle():
    """Makes a teacher that knows the labels of given images."""

    def make(data):
        return Teacher("oracle", _Oracle(data), side=8)

    return make
