"""Names of phones and the product types by which they tell what they are (registry.json)."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from luts.format.errors import close_names
from orchestrator.wire.errors import DeviceError


class Phone(BaseModel):
    """A model of phone.

    `product_types` are what it answers: Apple's ProductType (iPhone14,5) or Android's ro.product.model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    kind: Literal["iphone", "android"]
    product_types: tuple[str, ...]
    soc: str

    def describe(self) -> str:
        """Title, and how the phone calls itself where that is something else: `iPhone 13 (iPhone14,5)`."""
        types = " or ".join(self.product_types)
        return self.title if types == self.title else f"{self.title} ({types})"


class _Registry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    phones: tuple[Phone, ...]


@cache
def known_phones() -> dict[str, Phone]:
    """All known phones by name."""
    text = resources.files(__package__).joinpath("registry.json").read_text(encoding="utf-8")
    return {phone.name: phone for phone in _Registry.model_validate_json(text).phones}


def known_phone(name: str) -> Phone | None:
    """The phone of that name, however it is spaced or capitalised; None where the registry does not have it."""
    return known_phones().get(_normal(name))


def unknown_device(name: str) -> DeviceError:
    """The error for a name that means nothing, with similar ones."""
    close = close_names(_normal(name), ["host", "simulated", *known_phones()], 4, 0.5)
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "known are host and phones such as iphone13 or pixel8"
    )
    return DeviceError(f"unknown device {name[:64]!r}: {hint}; `bench devices` shows what is attached")


def _normal(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def phone_of(product_type: str) -> Phone | None:
    """The phone that answers with this product type; None where the registry does not have it."""
    return next((phone for phone in known_phones().values() if product_type in phone.product_types), None)
