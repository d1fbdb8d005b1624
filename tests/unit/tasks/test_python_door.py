"""`import orchestrator`: every task under a name that stays what it is."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import orchestrator


def test_no_name_is_that_of_a_subpackage() -> None:
    subpackages = {module.name for module in pkgutil.iter_modules(orchestrator.__path__)}
    assert not subpackages & set(vars(orchestrator)["__all__"])


def test_names_stay_what_they_are_once_subpackages_are_imported() -> None:
    for module in ("measure.session", "export.pool", "report.page", "breakdown.attribution"):
        importlib.import_module(f"orchestrator.{module}")
    assert all(callable(getattr(orchestrator, name)) for name in ("measure_networks", "break_down"))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="measure_everything"):
        getattr(orchestrator, "measure_everything")  # noqa: B009


def test_the_door_itself_loads_nothing() -> None:
    heavy = "torch", "pandas", "typer", "pydantic", "orchestrator.tasks"
    code = f"import orchestrator, sys; assert not sys.modules.keys() & set({heavy})"
    subprocess.run([sys.executable, "-c", code], check=True)
