"""A Core ML package as a classifier on this machine: its program, evaluated in PyTorch.

Weights and the rounding of quantised activations are those of the file; sums are fp32, where Core ML's are fp16.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from luts.format.errors import InvalidArtifactError
from orchestrator.export.artifacts.artifact import deliver
from orchestrator.export.lower.coreml import evaluate, read_package


class PackageClassifier:
    """A classifier of one image.

    Raises:
        InvalidArtifactError: the package is damaged, or not a classifier of one image.
        UnknownOperatorError: it has an operator that is not known here.
    """

    def __init__(self, path: Path):
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            package = path if path.is_dir() else deliver(path, Path(folder) / "model.mlpackage")
            self._function = read_package(package)
        self._constants: dict[str, object] = {}
        taken = [tuple(map(int, variable.shape)) for variable in self._function.inputs.values()]
        given = [tuple(map(int, variable.shape)) for variable in self._function.outputs]
        match [*taken, *given]:
            case [(1, 3, height, width), (1, outputs)] if height == width:
                self.side, self.outputs = height, outputs
            case _:
                raise InvalidArtifactError(
                    f"{path} is not a classifier of one image: it takes {taken} and gives {given}"
                )

    def logits(self, image: np.ndarray) -> np.ndarray:
        """(1, outputs) of an image (1, 3, side, side)."""
        (logits,) = evaluate(self._function, (torch.from_numpy(image),), constants=self._constants)
        return logits.numpy()
