"""Known models of phones: names, and the product types by which they identify themselves (registry.json)."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from luts.format.errors import close_names
from luts.format.schema import FrozenModel
from orchestrator.wire.errors import DeviceError


class PhoneModel(FrozenModel):
    """A model of phone.

    Attributes:
        name: Device name in commands and in luts/data.
        title: What people call it.
        kind: Which transport it needs.
        product_types: How it identifies itself: Apple's ProductType (iPhone14,5) or Android's ro.product.model.
        soc: Its chip.
    """

    name: str
    title: str
    kind: Literal["iphone", "android"]
    product_types: tuple[str, ...]
    soc: str

    def describe(self) -> str:
        """Return the title, with the product types if they differ: `iPhone 13 (iPhone14,5)`."""
        types = " or ".join(self.product_types)
        return self.title if types == self.title else f"{self.title} ({types})"


class _Registry(FrozenModel):
    phones: tuple[PhoneModel, ...]


@cache
def known_phones() -> dict[str, PhoneModel]:
    """Return all known models by name."""
    text = resources.files(__package__).joinpath("registry.json").read_text(encoding="utf-8")
    return {phone.name: phone for phone in _Registry.model_validate_json(text).phones}


def known_phone(name: str) -> PhoneModel | None:
    """Return the model with this name in any spacing and capitalisation, None if it is unknown."""
    return known_phones().get(_normalise(name))


def phone_of(product_type: str) -> PhoneModel | None:
    """Return the model that identifies itself by this product type, None if it is unknown."""
    return next((phone for phone in known_phones().values() if product_type in phone.product_types), None)


def unknown_device(name: str) -> DeviceError:
    """Return the error for a name of no device, with similar names."""
    close = close_names(_normalise(name), ["host", "simulated", *known_phones()], 4, 0.5)
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "use host, or a phone's name such as iphone13 or pixel8"
    )
    return DeviceError(
        f"unknown device {name[:64]!r}: {hint}; `bench devices` shows what is attached", code="unknown_device"
    )


def _normalise(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
