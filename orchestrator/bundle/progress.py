"""Where a bundle stands, read from its journal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Done:
    """What a journal says has been done.

    Attributes:
        begun: How often each batch was begun.
        over: Batches that are not begun again.
        failed: Models that are left out, by digest, with the reason.
        deaths: How often the agent was ended while it loaded a model.
        greeting: The first hello's reply.
        loads: Midmeans of the log ratios of each model's loads in batches that are done, by digest...
        worked_s: ...and seconds of all batches that ended.
        loading: The model that was being loaded when the last record was written.
    """

    begun: Counter[int] = field(default_factory=Counter)
    over: set[int] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    greeting: Mapping[str, Any] | None = None
    finished: bool = False
    loads: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    worked_s: float = 0.0
    loading: str = ""

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Done:
        """What the records of a journal say."""
        done = cls()
        for record in records:
            done.add(record)
        return done

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the next record."""
        match record["kind"]:
            case "start":
                self.greeting = self.greeting or record["hello"]
                if self.loading:
                    self.deaths[self.loading] += 1
            case "batch":
                self.begun[record["batch"]] += 1
            case "end":
                self._end(record)
            case "failed":
                self.failed[record["sha256"]] = record["reason"]
            case "done":
                self.finished = True
        self.loading = record["sha256"] if record["kind"] == "loading" else ""

    def _end(self, record: Mapping[str, Any]) -> None:
        if not record["again"]:
            self.over.add(record["batch"])
        self.worked_s += record.get("worked_s", 0.0)
        for digest, log in record.get("logs", {}).items():
            self.loads[digest].append(log)

    def wants(self, batch: int, attempts: int) -> bool:
        """Whether a batch is to be begun, for the first time or again."""
        return batch not in self.over and self.begun[batch] < attempts
