"""AutoViT-nano with known latencies on two devices, small enough to enumerate."""

import pytest

from search.algorithms import CompiledSpace
from tests.support.search_world import NANO, make_price


@pytest.fixture(scope="package")
def price():
    return make_price()


@pytest.fixture(scope="package")
def nano(price):
    return CompiledSpace(NANO, [price, make_price(salt="other")])


@pytest.fixture(scope="package")
def everything(nano):
    """Return codes, totals and memory of all 2,176 architectures."""
    codes = nano.encode(list(NANO))
    return codes, *nano.totals(codes)
