"""Every constant that decides a measurement, with its reason. A LUT records the values it was made with."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Policy:
    """How a set of models is measured against a reference model.

    Attributes:
        batch_models: Models loaded side by side, besides the two loads of the reference. More of them share
            the reference's samples, but evict each other's weights from the caches.
        warmup: Untimed visits of each model after its load: the first ones page in weights and grow pools.
        warmup_ms: Most time, in the models, of visiting all of them in turn before every run of rounds, until their
            latencies stop falling: the clock falls while a run's samples travel. It takes 150 ms where the clock
            is up, and a slow ramp of a phone about a second.
        pace_us: Microseconds from the start of one call to that of the next, at least; 0: back to back. The idle
            time between lets clocks fall, as in an app that works on a camera's frames; such runs are not warmed up
            by time.
        settle_runs: Runs of a model right before each timed one, journaled but not used: they put back into
            the caches what the model before threw out, so a sample does not depend on its neighbour.
        keep_warm: Whether the processor is kept busy before visits, where a self-test finds that the clock falls
            without; else it is as the device's user has it.
        chunk_rounds: Rounds between two looks at the interval.
        min_rounds: A median and its bootstrap need about this many rounds.
        max_rounds: Beyond it a load's own level, not its noise, decides the error; a new load helps more.
        load_se: A load is done when the relative standard error of each model's ratio is below this.
        min_passes: Fresh loads of every model that there are at least: two give a spread, three an interval.
        max_passes: Fresh loads after which measuring ends, narrow or not.
        calls: Timed calls of each model for which measuring goes on within its budget, narrow or not: what the
            interval of a percentile takes. 0: none.
        half_width: Measuring ends when every model's 95 % interval is narrower than this, relative.
        heldout_half_width: A profile ends when the conformal interval of its predictions is narrower than this,
            relative, at 95 % (90 % where fewer than 19 models are held out). 1.5 % is what remains of networks
            that do not quite add up once noise is small: from there on passes gain little, more models would.
        max_attempts: Tries of one batch before measuring ends with an error, and chunks of one that are repeated
            because a clock's cap moved. One good batch in twenty fails the 95 % A/A interval by chance, four in a
            row one set of batches in a hundred thousand.
        max_reconnects: Losses of the agent that one batch survives.
        self_test: Whether a device is first asked what settle runs and company cost, and decides those two.
        cooling_s: Pause before a batch that was throttled is tried again, and the longest one before any batch for
            a warm device to cool.
    """

    batch_models: int = 6
    warmup: int = 5
    warmup_ms: int = 2000
    pace_us: int = 0
    settle_runs: int = 1
    keep_warm: bool = False
    chunk_rounds: int = 10
    min_rounds: int = 20
    max_rounds: int = 40
    load_se: float = 0.003
    min_passes: int = 3
    max_passes: int = 8
    calls: int = 0
    half_width: float = 0.01
    heldout_half_width: float = 0.015
    max_attempts: int = 4
    max_reconnects: int = 3
    cooling_s: float = 60.0
    self_test: bool = False

    @classmethod
    def of(cls, simulated: bool, self_test: bool = True, pace_us: int = 0) -> Policy:
        """The policy of all measurements; a simulated device cools in made-up time, for which nobody need wait."""
        return cls(
            cooling_s=0.0 if simulated else cls.cooling_s,
            self_test=self_test,
            pace_us=pace_us,
            warmup_ms=0 if pace_us else cls.warmup_ms,
        )

    def to_dict(self) -> dict[str, int | float]:
        """Name to value, for journals and LUTs."""
        return asdict(self)
