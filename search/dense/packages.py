"""pycocotools and torchmetrics, which only detection and segmentation need: the extra `dense`."""

from __future__ import annotations

import importlib
from types import ModuleType

from luts.format.errors import UsageError


def pycocotools(module: str) -> ModuleType:
    """`coco`, `cocoeval` or `mask`; `UsageError` where it is not installed."""
    return _packaged(f"pycocotools.{module}")


def torchmetrics(module: str) -> ModuleType:
    """A module of torchmetrics; `UsageError` where it is not installed."""
    return _packaged(f"torchmetrics.{module}")


def _packaged(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name.partition('.')[0]} is not installed; install it with: pip install 'blocktime[dense]'"
        ) from error
