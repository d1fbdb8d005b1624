"""The program of a Core ML package, read back from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luts.format.errors import InvalidArtifactError
from orchestrator.export.lower.quiet import quiet

_DATA = Path("Data") / "com.apple.CoreML"


def read_package(package: Path) -> Any:
    """The MIL function of an `.mlpackage` folder, for `orchestrator.export.lower.mil.evaluate`.

    Raises:
        InvalidArtifactError: it can't be read, or holds no ML program.
    """
    with quiet():
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.models.utils import load_spec

        try:
            spec = load_spec(str(package))
            program = load(spec, spec.specificationVersion, str(package / _DATA / "weights"))
            return program.functions["main"]
        except Exception as error:  # protobuf's, coremltools' and the weight reader's, of any kind
            raise InvalidArtifactError(
                f"{package}: no ML program can be read from it ({type(error).__name__}); export it again"
            ) from error
