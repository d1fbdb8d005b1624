"""A new device from few networks and other devices' LUTs, against a LUT from scratch and one factor."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from orchestrator.agent.device import usable_cores
from tools.benchmarks._phones import FOLDER, phone_tables
from tools.benchmarks._transfer_devices import DEVICES, LUT_NETWORKS, SPACE, phone_trial, simulated_trial
from tools.benchmarks._transfer_trial import COUNTS, METHODS, NOISE, Score, Trial, score

DRAWS = 4
TARGET = 0.015
COVERED = (0.92, 0.98)
ENTRIES_COVERED = 0.9
WORSE = 1.1
SHUFFLED_COUNTS = (3, 5, 10)

Make = Callable[..., Trial]
Scores = Mapping[tuple[str, str, str, int], Sequence[Score]]
"""By device, networks (`chosen`, `random`), method and how many."""

Wrong = Mapping[tuple[str, str, int], tuple[float, float, float]]
"""By device, what is shuffled and how many networks: MAPE of scratch and transfer, share of draws that drop it."""


def main(draws: int = DRAWS) -> str:
    """Leave one device out, over phones and made-up devices; what is missed is told first."""
    tables = phone_tables()
    parts = []
    if len(tables) > 1:
        makes = {phone: functools.partial(phone_trial, tables, phone) for phone in tables}
        parts.append(_part("Phones (public tables, networks of 20 to 40 random blocks)", makes, draws))
    else:
        parts.append(f"Phones: skipped, {FOLDER.name} is not beside the project.\n")
    makes = {device: functools.partial(simulated_trial, device) for device in DEVICES}
    parts.append(_part(f"Simulated devices of known truth ({SPACE})", makes, draws))
    return f"""## A new device from the LUTs of others

No device runs anything here. Every device in turn is left out and learned from n networks, seen with {NOISE:.1%} of
noise, and the others' entries. `scratch` is the joint fit with its physical prior, `one factor` the source that
fits best times a number (at 0 the mean error of all sources as they are), `transfer` the fit of `bench profile
--from`; `chosen` networks are the ones that it would choose, a few at a time, after what it measured. Phones'
sources are exact, made-up devices learn from LUTs of {LUT_NETWORKS} networks with the same noise. MAPE is of 100
held-out networks' true latencies; beside it the share of their measurements inside the 95 % interval, then that of
the true entries. Means of {draws} draws. The prior's strengths were centred on what the phones differ by, its width
was chosen by their coverage, and the rules that drop sources by what shuffled ones did here and this machine's
variants did to each other: they are no unseen devices. That the sources' own errors count, and that the strengths
are averaged over, was decided by the made-up devices' entries; no number was fitted to them.

{chr(10).join(parts)}"""


def run(makes: Mapping[str, Make], draws: int) -> Scores:
    """All trials of some devices; sources are whole."""
    scores: dict[tuple[str, str, str, int], list[Score]] = {}
    for device, found in _each(_scored, makes, draws):
        for (how, method, count), one in found:
            scores.setdefault((device, how, method, count), []).append(one)
    return scores


def run_shuffled(makes: Mapping[str, Make], draws: int) -> Wrong:
    """With sources one of which is shuffled, fitted to random networks."""
    scores: dict[tuple[str, str, int], list[tuple[Score, Score]]] = {}
    for device, found in _each(_scored_shuffled, makes, draws):
        for (shuffled, count), both in found:
            scores.setdefault((device, shuffled, count), []).append(both)
    return {
        place: (
            _error([scratch for scratch, _ in both]),
            _error([borrowed for _, borrowed in both]),
            float(np.mean(["shuffled" in borrowed.dropped for _, borrowed in both])),
        )
        for place, both in scores.items()
    }


def _each(
    scored: Callable[[Make, int], list[Any]], makes: Mapping[str, Make], draws: int
) -> list[tuple[str, list[Any]]]:
    """By device what every draw gives, several at once, each in one thread: with more, those of so small matrices
    take ten times as long."""
    with ProcessPoolExecutor(usable_cores(), initializer=threadpool_limits, initargs=(1,)) as pool:
        going = [
            (device, pool.submit(scored, make, seed))
            for device, make in makes.items()
            for seed in range(draws)
        ]
        return [(device, one.result()) for device, one in going]


def _scored(make: Make, seed: int) -> list[tuple[tuple[str, str, int], Score]]:
    found = []
    for how in ("random", "chosen"):
        trial = make(seed, chosen=how == "chosen")
        for method, count in itertools.product(METHODS, COUNTS):
            if (one := score(trial, method, count)) is not None:
                found.append(((how, method, count), one))
    return found


def _scored_shuffled(make: Make, seed: int) -> list[tuple[tuple[str, int], tuple[Score, Score]]]:
    found = []
    for shuffled in ("only", "too"):
        trial = make(seed, chosen=False, shuffled=shuffled)
        for count in SHUFFLED_COUNTS:
            scratch, borrowed = (score(trial, method, count) for method in ("scratch", "transfer"))
            assert scratch is not None
            assert borrowed is not None
            found.append(((shuffled, count), (scratch, borrowed)))
    return found


def _error(scores: Sequence[Score]) -> float:
    return float(np.mean([one.mape for one in scores]))


def _part(title: str, makes: Mapping[str, Make], draws: int) -> str:
    scores, wrong = run(makes, draws), run_shuffled(makes, draws)
    head = "| device | networks | method | " + " | ".join(map(str, COUNTS)) + " |"
    lines = [f"### {title}", "", _missed(scores, wrong), "", head, "|---" * (3 + len(COUNTS)) + "|"]
    for device in makes:
        for how in ("random", "chosen"):
            for method in METHODS:
                cells = [_cell(scores.get((device, how, method, count), ())) for count in COUNTS]
                lines.append(f"| {device} | {how} | {method} | " + " | ".join(cells) + " |")
    counts = SHUFFLED_COUNTS
    lines += [
        "",
        "With a source whose entries are shuffled, alone (`only`) or beside the others (`too`), random",
    ]
    lines += [
        "networks; MAPE from scratch, by transfer, share of draws in which it was dropped and named:",
        "",
    ]
    lines += [
        "| device | shuffled | " + " | ".join(map(str, counts)) + " |",
        "|---" * (2 + len(counts)) + "|",
    ]
    for device in makes:
        for shuffled in ("only", "too"):
            cells = ["{:.2%}, {:.2%}, {:.0%}".format(*wrong[device, shuffled, count]) for count in counts]
            lines.append(f"| {device} | {shuffled} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(scores: Sequence[Score]) -> str:
    if not scores:
        return "-"
    error = f"{_error(scores):.2%}"
    covered, entries = (_covered(scores, name) for name in ("coverage", "entries"))
    shares = [f"{share:.0%}" for share in (covered, entries) if share is not None]
    return ", ".join([error, *shares])


def _covered(scores: Sequence[Score], name: str) -> float | None:
    """Mean share inside of intervals."""
    shares = [share for one in scores if (share := getattr(one, name)) is not None]
    return float(np.mean(shares)) if shares else None


def _missed(scores: Scores, wrong: Wrong) -> str:
    """Targets that are missed, in a line each."""
    missed = []
    for (device, how, method, count), found in scores.items():
        if method != "transfer" or not count:
            continue
        error = _error(found)
        covered, entries = (_covered(found, shares) for shares in ("coverage", "entries"))
        scratch = _error(scores[device, how, "scratch", count])
        name = f"{device}, {count} {how} networks"
        if count == 10 and error > TARGET:
            missed.append(f"{name}: MAPE {error:.2%}, above {TARGET:.1%}")
        if entries is not None and entries < ENTRIES_COVERED:
            missed.append(
                f"{name}: intervals hold {entries:.1%} of the true entries, not {ENTRIES_COVERED:.0%}"
            )
        if count >= 10 and covered is not None and not COVERED[0] <= covered <= COVERED[1]:
            missed.append(
                f"{name}: {covered:.1%} inside the 95 % interval, outside {COVERED[0]:.0%} to {COVERED[1]:.0%}"
            )
        if error > WORSE * scratch:
            missed.append(f"{name}: {error:.2%} by transfer, {scratch:.2%} from scratch")
    for (device, shuffled, count), (scratch, error, _) in wrong.items():
        if error > WORSE * scratch:
            missed.append(
                f"{device}, {count} random networks, shuffled source {shuffled}: {error:.2%}, "
                f"{scratch:.2%} from scratch"
            )
    told = "\n".join(f"- {line}" for line in missed)
    return f"Targets missed:\n\n{told}" if missed else "No target is missed."
