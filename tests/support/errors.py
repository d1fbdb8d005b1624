"""Expected errors by their stable code."""

import contextlib
from collections.abc import Iterator

import pytest

from luts.format.errors import BlocktimeError


@contextlib.contextmanager
def raises(code: str, kind: type[BlocktimeError] = BlocktimeError) -> Iterator[pytest.ExceptionInfo]:
    """Expect an error of this code (and class), whose message is one line."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code!r}: {caught.value}"
    assert "\n" not in str(caught.value)
