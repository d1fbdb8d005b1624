"""Result of a search: its report, and what `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from luts.format.table import Column, Table
from orchestrator.winner.winner import LARGEST_BY, MeasuredBest, largest_document
from search.algorithms import Evaluated, SearchResult
from search.algorithms.record import BACKBONE_ACCURACY, MACS, LutPin

PROXY = (
    "accuracy is a proxy: top-1 of the backbone as a classifier, with weights inherited from the supernet, not mAP "
    "or mIoU; latency is that of backbone and head together"
)


def constraints_text(search: SearchResult) -> str:
    """Return a search's constraints as text."""
    constraints = search.constraints
    pins = search.provenance.luts if search.provenance else ()
    limits = [f"{ms:.3f} ms" for ms in constraints.latencies]
    parts = [" and ".join(by_lut(limits, search.lut_names)), *constraints.other_limits()]
    certainty = "by prediction"
    if constraints.cautious:
        certainty = f"latency with {100 * constraints.confidence:g} % confidence"
        if proxies := [pin for pin in pins if pin.read_for]:
            known = all(pin.device_log_sd for pin in proxies)
            certainty += (
                ", including the difference between devices"
                if known
                else " on the LUT's own device, unknown on others"
            )
    return ", ".join([*parts, certainty])


def lut_text(pin: LutPin) -> str:
    """Return a LUT's name, and the device it is a proxy for."""
    if not pin.read_for:
        return pin.name
    factor = (
        f"within a factor of {math.exp(1.96 * pin.device_log_sd):.2f}" if pin.device_log_sd else "unknown"
    )
    return f"{pin.name}, a proxy for {pin.read_for}: error between the devices {factor}"


def by_lut(texts: Sequence[str], luts: Sequence[str]) -> list[str]:
    """Return texts that hold for each LUT, with the LUT's name if there are several."""
    if len(luts) == 1:
        return list(texts)
    return [f"{text} by {lut}" for text, lut in zip(texts, luts, strict=True)]


@dataclass(frozen=True)
class FoundNetwork:
    """Result of a search.

    Attributes:
        result: The search.
        measured: The best networks as measured; None without a device.
        files: Files of the Pareto front in all the settings' objectives, best in the first one first; of the
            strategy `largest`, of all its networks.
        folder: Folder of the result.
        new_lut: The LUT's new version with the measurements.
        weights: The winner's weights as safetensors, those of its backbone if it has another task's head; None
            without a supernet.
    """

    result: SearchResult
    measured: MeasuredBest | None
    files: Mapping[Path, Evaluated]
    folder: Path
    new_lut: Path | None = None
    weights: Path | None = None

    MEASURED: ClassVar = (
        Column("rank", "rank"),
        Column("accuracy", "accuracy", 2, percent=True),
        Column("predicted_ms", "predicted ms", 3),
        Column("predicted_low", "low", 3, spare=2),
        Column("predicted_high", "high", 3, spare=2),
        Column("measured_ms", "measured ms", 3),
        Column("measured_low", "low", 3, spare=1),
        Column("measured_high", "high", 3, spare=1),
        Column("error", "error", 2, percent=True),
        Column("chosen", ""),
    )
    NETWORKS: ClassVar = (
        Column("file", "architecture"),
        Column("accuracy", "accuracy", 2, percent=True),
        Column("latency_ms", "predicted ms", 3),
        Column("latency_high_ms", "up to", 3, spare=2),
        Column("params", "parameters", counted=True, spare=1),
        Column("macs", "conv+linear MACs", counted=True, spare=2),
        Column("memory_bytes", "activation bytes", counted=True, spare=3),
    )

    @property
    def winner(self) -> Evaluated:
        """The winner that measurements chose; the search's own without measurements."""
        if self.measured is None:
            return self.result.winner
        return next(row for row in self.result.evaluated if row.arch == self.measured.winner)

    @property
    def by_size(self) -> bool:
        """Whether networks were ranked by MACs, so that nothing is known of their accuracy."""
        return self.result.objective == MACS

    @property
    def _note(self) -> str:
        return PROXY if self.result.objective == BACKBONE_ACCURACY else ""

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        result, measured = self.result, self.measured
        models = measured.model_dump()["models"] if measured else []
        pins = result.provenance.luts if result.provenance else ()
        files = [str(file) for file in self.files]
        if result.settings.strategy == "largest":
            document = largest_document(result)
            return {name: document[name] for name in _LARGEST_FIELDS} | {
                "trained": False,
                "luts": [pin.name for pin in pins],
                "read_for": pins[0].read_for if pins else "",
                "device_log_sd": pins[0].device_log_sd if pins else 0.0,
                "networks": [
                    row | {"file": file} for row, file in zip(document["networks"], files, strict=True)
                ],
                "measured": [row | {"weights": "random"} for row in models],
                "new_lut": str(self.new_lut) if self.new_lut else None,
            }
        document = {
            **result.model_dump(include={"space", "constraints", "settings", "coarse", "history"}),
            "winner": self.winner.model_dump(),
            "lut": result.lut_names[0],
            "luts": [pin.model_dump() for pin in pins],
            "measured": models,
            "meets_budget": measured.meets_budget if measured else None,
            "new_lut": str(self.new_lut) if self.new_lut else None,
            "front": [row.model_dump() | {"file": str(file)} for file, row in self.files.items()],
        }
        if self._note:
            document |= {
                "arch": str(self.folder / "winner.json"),
                "weights": str(self.weights),
                "top1": self.winner.accuracy,
                "latency_ms": self.winner.latency_ms,
                "latency_high_ms": self.winner.latency_high_ms,
                "note": self._note,
            }
        return document

    def report(self) -> Iterator[Table | str]:
        """Yield the facts, the networks, the measurements, and where the files are."""
        facts = self.facts()
        width = max(map(len, facts))
        yield "\n".join(f"  {name:<{width}}  {text}" for name, text in facts.items())
        yield from self._networks()
        if self.measured is not None:
            title = "the best, measured" + (" with random weights" if self.by_size or self._note else "")
            columns = [column for column in self.MEASURED if column.name != "accuracy" or not self.by_size]
            yield Table(title, columns, self._measured_rows(self.measured))
            yield self.measured.verdict(self.result.constraints.latency_ms)
        if self.new_lut is not None:
            yield f"the LUT with these measurements: {self.new_lut}"
        if self._note:
            yield f"{self._note}; winner.json and the backbone's weights ({self.weights}) in {self.folder}"
        elif self.by_size:
            yield (
                f"architectures in {self.folder}; to rank by accuracy, run bench train and bench search --supernet"
            )
        else:
            yield f"winner.json, .safetensors, .pte, .mlpackage and model card winner.md in {self.folder}"

    def facts(self) -> dict[str, str]:
        """Return what the report says above its tables."""
        result, winner, coarse = self.result, self.winner, self.result.coarse
        luts = map(lut_text, result.provenance.luts) if result.provenance else result.lut_names
        facts = {
            "lut": " and ".join(luts),
            "constraints": constraints_text(result),
            "feasible": f"{100 * coarse.feasible_share:.3g} % of the space; "
            f"the fastest has {coarse.smallest_ms:.3f} ms",
        }
        if result.settings.strategy == "largest":
            candidates = "all" if coarse.whole else "drawn from all"
            return facts | {
                "networks": f"the {len(result.evaluated)} largest by {LARGEST_BY}, of {coarse.feasible:,}, "
                f"{candidates} within the constraints",
                "trained": "nothing: size is all that is known of them",
            }
        value = f"{100 * winner.accuracy:.2f} % on the search split, with inherited weights"
        if own := result.own_objective:
            value = f"{winner.accuracy:.4g} by the objective {own}, in columns named accuracy too"
        predicted = [f"{ms:.3f} ms (up to {high_ms:.3f})" for ms, high_ms in winner.latencies]
        return facts | {
            "evaluated": f"{len(result.evaluated)} architectures in {len(result.history)} generations",
            "winner": winner.arch,
            "objective" if result.own_objective else "accuracy": value,
            "predicted": "; ".join(by_lut(predicted, result.lut_names)),
            "parameters": f"{winner.params:,}",
        }

    def _networks(self) -> Iterator[Table]:
        settings = self.result.settings
        rows = [row.model_dump() | {"file": file.name} for file, row in self.files.items()]
        if settings.strategy == "largest":
            columns = [column for column in self.NETWORKS if column.name != "accuracy"]
            yield Table("the largest, as predicted", columns, rows)
        elif settings.strategy == "pareto":
            title = f"front of {', '.join(settings.objectives)}: architectures in {self.folder / 'front'}"
            yield Table(title, self.NETWORKS, rows)

    def _measured_rows(self, measured: MeasuredBest) -> list[dict[str, Any]]:
        chosen = measured.rank if measured.meets_budget else None
        return [
            model.model_dump()
            | {"rank": rank + 1, "error": model.error, "chosen": "chosen" if rank == chosen else ""}
            for rank, model in enumerate(measured.models)
        ]


_LARGEST_FIELDS = ("space", "budget", "count", "draws", "seed", "coarse", "whole", "largest_by")
