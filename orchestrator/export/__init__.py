"""From an architecture or any module to a file that a phone runs: `.pte` (ExecuTorch) or `.mlpackage` (Core ML).

Importing this package needs no torch; exporting does.
"""

from orchestrator.export.artifacts.artifact import Artifact, ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec, block_specs_for
from orchestrator.export.pool import ExportFailure, export_each, export_many
