"""Result of a search: its report, and what `--json` prints."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from luts.format.table import Column, Facts, Table, filled
from orchestrator.winner.winner import LARGEST_BY, MeasuredBest, largest_document
from search.algorithms import Evaluated, SearchResult
from search.algorithms.adaptive import AdaptiveResult, CascadeLimits
from search.algorithms.finals import Finals
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
            without a supernet and finals.
        finals: Networks that were trained alone; the winner is theirs.
        top1: Top-1 on the search split with inherited weights, of the pick, the largest and the deepest network;
            empty if the objective is top-1 itself, or without a supernet.
    """

    result: SearchResult
    measured: MeasuredBest | None
    files: Mapping[Path, Evaluated]
    folder: Path
    new_lut: Path | None = None
    weights: Path | None = None
    finals: Finals | None = None
    top1: Mapping[str, float] = field(default_factory=dict)

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
        Column("depth", "depth", spare=2),
        Column("memory_bytes", "activation bytes", counted=True, spare=3),
    )
    COMPARED: ClassVar = (Column("rule", "network"), Column("top1", "top-1", 2, percent=True), *NETWORKS[1:7])
    FINALS: ClassVar = (
        Column("rule", "chosen as"),
        Column("top1", "top-1", 2, percent=True),
        Column("again", "repeated", 2, percent=True),
        *NETWORKS[2:7],
        Column("winner", ""),
    )

    STAGES: ClassVar = (
        Column("rule", "network"),
        Column("share", "answers", 1, percent=True),
        Column("threshold", "threshold", 4),
        Column("accuracy", "top-1 alone", 2, percent=True),
        *NETWORKS[2:6],
    )

    @property
    def winner(self) -> Evaluated:
        """The winner that finals chose, or measurements; the search's own without both."""
        chosen = self.result.winner.arch
        if self.finals is not None:
            chosen = self.finals.winner.arch
        elif self.measured is not None:
            chosen = self.measured.winner
        return self._row(chosen)

    def _row(self, arch: str) -> Evaluated:
        return next(row for row in self.result.rows if row.arch == arch)

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
                "finals": self._finals_document(),
            }
        document = {
            **result.model_dump(include={"space", "constraints", "settings", "coarse", "history", "cascade"}),
            "winner": self.winner.model_dump(),
            "lut": result.lut_names[0],
            "luts": [pin.model_dump() for pin in pins],
            "measured": models,
            "meets_budget": measured.meets_budget if measured else None,
            "new_lut": str(self.new_lut) if self.new_lut else None,
            "compared": self._compared(),
            "finals": self._finals_document(),
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

    def report(self) -> Iterator[Facts | Table | str]:
        """Yield the facts, the networks, the measurements, and where the files are."""
        if self.result.cascade is not None and self.result.adaptive is not None:
            yield from self._cascade_report(self.result.cascade, self.result.adaptive)
            return
        facts = self.facts()
        width = max(map(len, facts))
        yield "\n".join(f"  {name:<{width}}  {text}" for name, text in facts.items())
        yield from self._networks()
        if self.finals is not None:
            title = f"finals: trained alone by the recipe {self.finals.recipe}, top-1 on the search split"
            yield Table(title, self.FINALS, self._final_rows(self.finals))
            yield self.finals.verdict()
        elif not self.by_size and len(compared := self._compared()) > 1:
            columns = filled(self._titled(self.COMPARED), compared)
            yield Table("the search's pick and the simplest rules", columns, compared)
            yield (
                "that the pick is more accurate is not confirmed: values with shared weights are estimates; "
                "--finals 8 trains these networks and others"
            )
        if self.measured is not None:
            title = "the best, measured" + (" with random weights" if self.by_size or self._note else "")
            columns = [column for column in self.MEASURED if column.name != "accuracy" or not self.by_size]
            yield Table(title, self._titled(columns), self._measured_rows(self.measured))
            yield self.measured.verdict(self.result.constraints.latency_ms)
        if self.new_lut is not None:
            yield f"the LUT with these measurements: {self.new_lut}"
        if self._note:
            yield f"{self._note}; winner.json and the backbone's weights ({self.weights}) in {self.folder}"
        elif self.by_size and self.finals is None:
            yield (
                f"architectures in {self.folder}; to rank by accuracy, run bench train and bench search --supernet"
            )
        else:
            yield f"winner.json, .safetensors, .pte, .mlpackage and model card winner.md in {self.folder}"

    def _cascade_report(self, found: AdaptiveResult, limits: CascadeLimits) -> Iterator[Facts | Table | str]:
        """Yield a cascade's facts, its stages or segments next to single networks, and where the files are."""
        cascade, by = found.cascade, "by upper bounds" if limits.cautious else "by prediction"
        top1 = f"{100 * cascade.accuracy:.2f} % on the {cascade.images} images that chose the threshold"
        facts = {
            "limits": f"expected {limits.latency_ms:.3f} ms, worst case {limits.worst_ms:.3f} ms, {by}",
            "expected": f"{cascade.expected_ms:.3f} ms (up to {cascade.expected_high_ms:.3f})",
            "worst case": f"{cascade.worst_ms:.3f} ms (up to {cascade.worst_high_ms:.3f})",
            "accuracy": f"{top1}, with inherited weights",
        }
        yield Facts("", facts)
        stages = ("up to the exit", "after it") if limits.kind == "exits" else ("stage 1", "stage 2")
        names = (*stages, "best of equal mean latency", "largest within")
        networks = (*cascade.stages, found.equal, found.largest)
        cells = zip(
            names, networks, (*cascade.shares, None, None), (*cascade.thresholds, *[None] * 3), strict=True
        )
        rows = [
            row.model_dump() | {"rule": name, "share": share, "threshold": threshold}
            for name, row, share, threshold in cells
        ]
        yield Table(f"stages, and single networks of {found.candidates}", self.STAGES, rows)
        yield f"stage1.json, .safetensors, .pte, .mlpackage and so on, and result.json in {self.folder}"

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
                "networks": f"the {result.settings.skeletons} largest by {LARGEST_BY}, and the deepest, of "
                f"{coarse.feasible:,}, {candidates} within the constraints",
                "trained": "nothing: size is all that is known of them"
                if self.finals is None
                else "the finals",
            }
        values = {"accuracy": f"{100 * winner.accuracy:.2f} % on the search split, with inherited weights"}
        if own := result.own_objective:
            values = {"objective": f"{winner.accuracy:.4g} by {own}"}
            if top1 := self.top1.get(winner.arch):
                values["accuracy"] = f"{100 * top1:.2f} % on the search split, with inherited weights"
        predicted = [f"{ms:.3f} ms (up to {high_ms:.3f})" for ms, high_ms in winner.latencies]
        return facts | {
            "evaluated": f"{len(result.evaluated)} architectures in {len(result.history)} generation"
            + ("s" if len(result.history) > 1 else ""),
            "winner": winner.arch,
            **values,
            "predicted": "; ".join(by_lut(predicted, result.lut_names)),
            "parameters": f"{winner.params:,}",
        }

    def _compared(self) -> list[dict[str, Any]]:
        """Return the pick, the largest and the deepest network as rows, each network once."""
        named = {
            "the pick": self.winner,
            "the largest": self.result.largest,
            "the deepest": self.result.deepest,
        }
        rows: dict[str, dict[str, Any]] = {}
        for name, row in named.items():
            if row is not None and row.arch in rows:
                rows[row.arch]["rule"] += f", {name}"
            elif row is not None:
                rows[row.arch] = {"rule": name, "top1": self.top1.get(row.arch)} | row.model_dump()
        return list(rows.values())

    def _final_rows(self, finals: Finals) -> list[dict[str, Any]]:
        return [
            self._row(final.arch).model_dump()
            | {
                "rule": final.rule,
                "top1": final.top1[0],
                "again": statistics.fmean(final.top1[1:]) if final.top1[1:] else None,
                "winner": "winner" if final is finals.winner else "",
            }
            for final in finals.finals
        ]

    def _finals_document(self) -> dict[str, Any] | None:
        """Return what `--json` says of the finals."""
        if self.finals is None:
            return None
        return self.finals.model_dump() | {
            "winner": self.finals.winner.arch,
            "noise": self.finals.noise,
            "expected_loss": self.finals.expected_loss,
        }

    def _networks(self) -> Iterator[Table]:
        settings = self.result.settings
        rows = [row.model_dump() | {"file": file.name} for file, row in self.files.items()]
        if settings.strategy == "largest":
            columns = [column for column in self.NETWORKS if column.name != "accuracy"]
            yield Table("the largest, as predicted", columns, rows[: settings.skeletons])
            by_depth = sorted(rows, key=lambda row: (-row["depth"], -row["macs"], row["latency_ms"]))
            yield Table("the deepest, then largest", columns, by_depth[: settings.skeletons])
        elif settings.strategy == "pareto":
            title = f"front of {', '.join(settings.objectives)}: architectures in {self.folder / 'front'}"
            yield Table(title, self._titled(self.NETWORKS), rows)

    def _titled(self, columns: Sequence[Column]) -> list[Column]:
        """Return columns with the objective's values under its own name where they are not accuracies."""
        if not self.result.own_objective:
            return list(columns)
        own = Column("accuracy", "objective", 4)
        return [own if column.name == "accuracy" else column for column in columns]

    def _measured_rows(self, measured: MeasuredBest) -> list[dict[str, Any]]:
        chosen = measured.rank if measured.meets_budget else None
        return [
            model.model_dump()
            | {"rank": rank + 1, "error": model.error, "chosen": "chosen" if rank == chosen else ""}
            for rank, model in enumerate(measured.models)
        ]


_LARGEST_FIELDS = ("space", "budget", "count", "draws", "seed", "coarse", "whole", "largest_by")
