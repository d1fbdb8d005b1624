"""The winner's files: weights, exported models and the model card, which says how it was found and measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from luts.format.errors import InvalidArtifactError, shorten
from luts.format.files import storage_errors, write_json, write_text
from luts.format.lut import Lut
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.artifact import deliver, digest
from orchestrator.export.artifacts.spec import Variant
from orchestrator.plan.plan import model_id
from orchestrator.winner.result import FoundNetwork, by_lut, constraints_text, lut_text
from search.algorithms import SearchResult
from search.blocks import group_blocks
from search.spaces import Arch
from search.spaces.registry import is_timm

if TYPE_CHECKING:
    from search.supernet.inherit import InheritedAccuracy
    from search.supernet.train.checkpoint import CheckpointInfo


def model_card(found: FoundNetwork, lut: Lut, supernet: CheckpointInfo, files: Mapping[str, str]) -> str:
    """Return a model card as Markdown.

    Args:
        found: The winner and its search.
        lut: LUT of the first latency target.
        supernet: Where the weights come from.
        files: Name to sha256; of a Core ML package that of its archive.
    """
    arch, macs = found.winner.architecture(), found.winner.architecture().macs()
    teacher = f" and of the teacher (`{supernet.teacher}`)" if supernet.teacher else ""
    facts = {
        "architecture": f"`{found.winner.arch}`",
        "input": f"1 x 3 x {arch.resolution} x {arch.resolution}, RGB, normalised by ImageNet's mean and deviation",
        "output": f"{arch.classes} classes: {shorten(supernet.classes, 12)}",
        "parameters": f"{found.winner.params:,}",
        "MACs": f"{macs.conv_linear / 1e6:.2f} M conv+linear, {macs.total / 1e6:.2f} M all",
    }
    parts = [
        f"# A network of {found.result.space} for {_proxy_device(found.result) or lut.meta.device.name}",
        _table(facts),
        "## Latency",
        *_latency(found, lut),
        "## Accuracy",
        _accuracy(found, supernet),
        "## How it was found",
        _table(_provenance(found, supernet)),
        "## Not measured",
        "\n".join(f"- {line}" for line in _not_measured(found, lut)),
        "## Files",
        _table({name: f"sha256 `{sha256}`" for name, sha256 in files.items()}),
        "## Licence",
        "blocktime is under Apache-2.0 and claims nothing in this model. The terms of the images "
        f"(`{supernet.source}`){teacher} apply to the weights; blocktime does not know them.",
    ]
    return "\n\n".join(parts) + "\n"


def _accuracy(found: FoundNetwork, supernet: CheckpointInfo) -> str:
    if found.finals is not None:
        return (
            f"{100 * found.finals.winner.top1[0]:.2f} % top-1 on the search split of `{supernet.source}`, trained "
            f"alone by the recipe {found.finals.recipe}. {found.finals.verdict()} The search chose by these "
            "numbers, so they are optimistic; `bench eval --final` gives the accuracy on the validation split."
        )
    value, search = found.winner.accuracy, found.result
    if own := search.own_objective:
        top1 = found.top1.get(found.winner.arch)
        with_top1 = f", with {100 * top1:.2f} % top-1 on the search split" if top1 else ""
        return (
            f"{value:.4g} by the objective `{own}`, which is not an accuracy. "
            f"The weights are inherited from the supernet{with_top1}; `bench eval` gives their accuracy."
        )
    split = search.provenance.split if search.provenance else "search"
    return (
        f"{100 * value:.2f} % top-1 on the {split} split of `{supernet.source}`, with "
        "weights inherited from the supernet and not trained further. The search chose the network by this "
        "number, so it is optimistic; `bench eval --final` gives the accuracy on the validation split."
    )


def _latency(found: FoundNetwork, lut: Lut) -> list[str]:
    meta, search, measured = lut.meta, found.result, found.measured
    where = f"{meta.device.model}, {meta.device.os}, {meta.variant}"
    predicted = [
        f"{ms:.3f} ms"
        + (f", at most {high_ms:.3f} ms with that confidence" if search.constraints.cautious else "")
        for ms, high_ms in found.winner.latencies
    ]
    luts = search.lut_names
    rows = {"constraints": constraints_text(search), "predicted": "; ".join(by_lut(predicted, luts))}
    if measured is not None and (row := measured.of_arch(found.winner.architecture())) is not None:
        rows["predicted interval"] = f"{row.predicted_low:.3f} to {row.predicted_high:.3f} ms"
        rows["measured"] = (
            f"{row.measured_ms:.3f} ms, 95 % interval {row.measured_low:.3f} to {row.measured_high:.3f} ms, "
            f"{'within' if measured.meets_budget else 'NOT within'} the latency limit"
        )
        if row.percentiles is not None:
            rows["percentiles"] = str(row.percentiles)
    how = f"At batch 1 on {where}, in milliseconds of the LUT's reference model."
    if device := _proxy_device(search):
        how = (
            f"At batch 1. **Predictions are by a LUT of another device: {where}.** Measurements are of {device}, "
            "in milliseconds of its own reference model on that day."
        )
    parts = [] if meta.measured == "measured" else ["**The LUT's numbers are simulated.**"]
    parts.append(how)
    if len(luts) > 1:
        others = ", ".join(luts[1:])
        parts.append(f"The first is for this device; on the others ({others}) nothing was measured.")
    return [*parts, _table(rows)]


def _proxy_device(search: SearchResult) -> str:
    """Return the target device if the first LUT is another device's, else ""."""
    return search.provenance.luts[0].read_for if search.provenance else ""


def _provenance(found: FoundNetwork, info: CheckpointInfo) -> Mapping[str, str]:
    search, provenance = found.result, found.result.provenance
    facts = {
        "LUT": f"lut.json `{search.price}`",
        "supernet" if found.finals is None else "checkpoint": f"weights `{info.weights_sha256}`",
        "recipe": f"{info.recipe.name}, {info.recipe.epochs} epochs, {info.step} steps, seed {info.recipe.seed}"
        + ("" if info.finished else ", NOT trained to its end"),
        "trained subnets": str(info.scope or "unknown"),
        "teacher": info.teacher or "none",
        "data": f"`{info.source}`, digest `{info.data_digest}`",
        "split": f"seed {info.split_seed}, {100 * info.split_fraction:g} % held out for the search",
        "search": f"{search.settings.strategy}, seed {search.settings.seed}, {len(search.evaluated)} evaluations",
    }
    if provenance is not None:
        code = provenance.code
        commit = f", commit `{code.commit}`" if code.commit else ""
        facts["code"] = f"blocktime {code.package}{commit}, sources of search `{code.sources}`"
        facts["LUT"] = "; ".join(f"{lut_text(lut)}, lut.json `{lut.sha256}`" for lut in provenance.luts)
    return facts


def _not_measured(found: FoundNetwork, lut: Lut) -> list[str]:
    device = _proxy_device(found.result) or lut.meta.device.name
    lines = [
        "accuracy on the validation split, on other images, or after further training",
        "memory, energy and heat on the device, and latency under sustained load",
        f"latency other than with {lut.meta.variant} on {device}: one of the two exported models is for "
        "another runtime",
    ]
    if found.measured is None:
        lines.insert(0, "the latency: it is predicted from the LUT (`bench search --device` measures it)")
    return lines


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {text.replace('|', '/')} |" for name, text in rows.items())]
    )


def save_weights(evaluator: InheritedAccuracy, arch: Arch, folder: Path, after: Arch | None = None) -> Path:
    """Write a subnet's weights with its own batch-norm statistics as safetensors, and return the file.

    Weights of a timm network have timm's names, and metadata that say how the images of its training were
    normalised, which timm's own weights may differ in. With `after`, an exit of `arch`, they are those of the
    segment after it, named as in its export.
    """
    from safetensors.torch import save_file  # imports torch, which most commands do not need
    from torch import nn

    blocks = arch.after_exit(after) if after else arch.blocks()
    path = folder / f"{model_id(tuple(block.key for block in blocks))}.safetensors"
    network: nn.Sequential = evaluator.network(arch).cpu()
    if after is not None:
        network = nn.Sequential(*list(network)[-len(group_blocks(blocks)) :])
    with storage_errors(f"cannot write {path}", "choose another --output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        timm = is_timm(arch.space)
        state = (network[0] if timm else network).state_dict()
        metadata = {"normalisation": "imagenet"} if timm else None
        # training leaves convolutions in channels-last layout, which the format cannot express
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata)
    return path


def weighted(spec: ExportSpec, weights: Path) -> ExportSpec:
    """Return a spec with weights from a file; raise InvalidArtifactError if it cannot be read."""
    try:
        sha256, _ = digest(weights)
    except OSError as error:
        raise InvalidArtifactError(
            f"{weights}: cannot read the weights ({error.strerror}); check the path", code="unreadable_file"
        ) from error
    return replace(spec, weights=f"sha256:{sha256}", weights_path=str(weights))


def winner_variants(variant: Variant) -> tuple[Variant, Variant]:
    """Return what a winner is exported for: ExecuTorch and Core ML, one of them in the LUT's own variant."""
    if variant.runtime == "executorch":
        return variant, Variant("coreml", "all")
    if variant.is_simulated:
        return Variant("executorch", "xnnpack", threads=1), Variant("coreml", "all")
    return Variant("executorch", "xnnpack", threads=1), variant


def write_winner(
    found: FoundNetwork, lut: Lut, supernet: CheckpointInfo, weights: Path, artifacts: Iterable[Artifact]
) -> None:
    """Write `winner.json`, the weights, the exported models, and last the card with their digests."""
    files = write_network(found.folder, "winner", found.winner.architecture(), weights, artifacts)
    write_text(found.folder / "winner.md", model_card(found, lut, supernet, files))


def write_network(
    folder: Path, name: str, arch: Arch, weights: Path, artifacts: Iterable[Artifact]
) -> dict[str, str]:
    """Write a network's architecture, weights and exported models as `name` with suffixes; return their sha256."""
    arch_file = folder / f"{name}.json"
    write_json(arch_file, arch.to_document())
    files = {arch_file.name: digest(arch_file)[0]}
    models = [(artifact.path, artifact.suffix, artifact.sha256) for artifact in artifacts]
    for path, suffix, sha256 in [*models, (weights, ".safetensors", digest(weights)[0])]:
        files[deliver(path, folder / f"{name}{suffix}").name] = sha256
    return files
