"""A winner's files: architecture, weights, a model for each runtime, and the model card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from luts.format.atomic_file import storage_error, write_text
from luts.format.errors import InvalidArtifactError
from luts.format.json_file import write_json
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.cache import digest
from orchestrator.export.artifacts.package import deliver
from orchestrator.export.artifacts.variant import Variant
from orchestrator.plan.plan import model_id
from orchestrator.winner.card import Card, model_card
from search.spaces import Arch
from search.spaces.whole import is_timm

if TYPE_CHECKING:
    from search.supernet.inherit.evaluate import InheritedAccuracy


def save_weights(evaluator: InheritedAccuracy, arch: Arch, folder: Path) -> Path:
    """Write a subnet's weights, its own BN statistics among them, as safetensors; the file.

    Those of a network of timm have timm's names.
    """
    from safetensors.torch import save_file  # brings torch, which most commands can do without

    path = folder / f"{model_id(arch.keys())}.safetensors"
    network = evaluator.network(arch).cpu()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = (network[0] if is_timm(arch.space) else network).state_dict()
        # training leaves convolutions with their channels last, which the format has no word for
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error, "choose another --output") from error
    return path


def weighted_spec(variant: Variant, arch: Arch, weights: Path) -> ExportSpec:
    """How an architecture is exported with weights from a file."""
    return weighted(variant.export_spec(arch.keys()), weights)


def weighted(spec: ExportSpec, weights: Path) -> ExportSpec:
    """A spec with the weights of a file; `InvalidArtifactError` where that can't be read."""
    try:
        sha256, _ = digest(weights)
    except OSError as error:
        raise InvalidArtifactError(
            f"{weights}: cannot read the weights ({error.strerror}); check the path"
        ) from error
    return replace(spec, weights=f"sha256:{sha256}", weights_path=str(weights))


def winner_variants(variant: Variant) -> tuple[Variant, Variant]:
    """What a winner is exported for: ExecuTorch and Core ML, the LUT's own variant one of them."""
    if variant.runtime == "executorch":
        return variant, Variant("coreml", "all")
    if variant.is_simulated:
        return Variant("executorch", "xnnpack", threads=1), Variant("coreml", "all")
    return Variant("executorch", "xnnpack", threads=1), variant


def write_winner(folder: Path, card: Card, weights: Path, artifacts: Iterable[Artifact]) -> None:
    """Write `winner.json`, the weights, the exported models, and last the card, which has their digests."""
    arch = card.winner.architecture()
    described = folder / "winner.json"
    write_json(described, arch.to_document())
    files = {described.name: digest(described)[0]}
    models = [(artifact.path, artifact.suffix, artifact.sha256) for artifact in artifacts]
    for path, suffix, sha256 in [*models, (weights, ".safetensors", digest(weights)[0])]:
        files[deliver(path, folder / f"winner{suffix}").name] = sha256
    write_text(folder / "winner.md", model_card(card, files))
