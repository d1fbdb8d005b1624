import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from luts.format.errors import (
    MAX_LINE,
    BlocktimeError,
    close_names,
    first_problem,
    install_extra,
    shorten,
    unknown,
)


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_long_list_is_shortened(names: list[str], text: str) -> None:
    assert shorten(names, 2) == text


def test_unknown_name_lists_similar_or_all_names() -> None:
    assert unknown("fruit", "aple", ["apple", "pear"]) == "unknown fruit 'aple'; did you mean apple?"
    assert unknown("fruit", "zzz", ["apple", "pear"], "or a FILE") == (
        "unknown fruit 'zzz'; known: apple, pear (or a FILE)"
    )
    many = [f"fruit{number}" for number in range(50)]
    assert unknown("fruit", "zzz", many) == "unknown fruit 'zzz'; no name is similar"
    assert unknown("fruit", "x" * 500, many).count("x") == 80


def test_close_names_are_sorted_and_limited() -> None:
    assert close_names("pixel8", ["host", "pixel8a", "pixel7", "pixel8"], 2) == ["pixel8", "pixel8a"]
    assert close_names("pixel8", ["host"]) == []


def test_error_is_one_line_whatever_it_quotes() -> None:
    assert str(BlocktimeError("a\nb\x1b[2J\ud800 µ")) == "a b [2J  µ"
    assert str(BlocktimeError("x" * MAX_LINE)) == "x" * MAX_LINE
    long = str(BlocktimeError(f"{'x' * 5000}; restore it"))
    assert len(long) <= MAX_LINE
    assert long.endswith("x; restore it")


class Inner(BaseModel):
    count: int


class Outer(BaseModel):
    inner: Inner

    @model_validator(mode="after")
    def _even(self) -> "Outer":
        if self.inner.count % 2:
            raise ValueError("an odd count")
        return self


def refused(document: object) -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(document)
    return raised.value


def test_first_problem_names_field_and_value() -> None:
    error = refused({"inner": {"count": "many"}})
    assert first_problem(error).startswith("inner.count = 'many': should be a valid integer")
    assert first_problem(refused({"inner": {}})) == "inner.count is missing"
    assert first_problem(refused({"inner": [1]})).startswith("inner: should be")


def test_problem_of_the_whole_document() -> None:
    error = refused({"inner": {"count": 3}})
    assert first_problem(error) == "an odd count"
    assert first_problem(error, "its JSON") == "its JSON: an odd count"


def test_extras_are_those_of_this_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert install_extra("ios").endswith("pip install -e '.[ios]'")
    assert "ios" in project["project"]["optional-dependencies"]
