"""Packages under the GPL are needed by the extra for iPhones alone."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement

EXTRAS = ("android", "cluster", "share", "onnx", "litert", "dense")


def needed(requirements: list[str], extras: set[str], seen: set[str]) -> set[str]:
    """Return the names of all installed packages that these requirements lead to."""
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
        ):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name in seen:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:  # needed on other systems or by other Python versions only
            continue
        seen.add(name)
        needed(found.requires or [], requirement.extras, seen)
    return seen


def licence(name: str) -> str:
    """Return what a package says of its licence: expression, classifiers and the first line of its text."""
    metadata = distribution(name).metadata
    texts = metadata.get_all("License-Expression", []) + metadata.get_all("Classifier", [])
    return " ".join(
        [
            *(text for text in texts if "License ::" in text or ":" not in text),
            *(text.split("\n")[0] for text in metadata.get_all("License", [])),
        ]
    )


def is_gpl(name: str) -> bool:
    """Return whether a package is under the GPL or AGPL with no other choice; the LGPL does not count."""
    text = licence(name).replace("LGPL", "").replace("Lesser General Public License", "")
    return ("GPL" in text or "GNU General Public" in text) and " OR " not in text


def gpl_packages(extra: str) -> set[str]:
    """Return the packages under the GPL that the core with an extra needs; "" for the core alone."""
    return {name for name in needed(distribution("blocktime").requires or [], {extra}, set()) if is_gpl(name)}


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_core_and_extras_need_no_gpl(extra: str) -> None:
    assert gpl_packages(extra) == set()


def test_extra_for_iphones_is_found_to_need_the_gpl() -> None:
    pytest.importorskip("pymobiledevice3")
    assert "pymobiledevice3" in gpl_packages("ios")
