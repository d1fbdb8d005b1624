"""Trained weights that a backbone begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from luts.format.errors import UsageError
from search.networks.backbone import load_backbone
from search.supernet.model.weights_file import tensors_digest


@dataclass(frozen=True)
class BackboneWeights:
    """A classifier's weights and statistics by name; `source`: where they come from, as given."""

    source: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    def put_into(self, network: nn.Module) -> str:
        """Overwrite a backbone; the sha256 of what was given. `UsageError` where they are of another one."""
        try:
            load_backbone(network, self.tensors)
        except UsageError as error:
            raise UsageError(f"--init {self.source}: {error}") from error
        return tensors_digest(self.tensors)
