"""SIGKILL at random moments of `bench`; each killed run is resumed and compared with an undisturbed one."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import random
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luts.format.files import write_json
from luts.format.lut import Lut
from luts.format.provenance import ROOT, source_digest
from luts.format.store import LutStore, read_lut
from luts.verify import verify_lut
from orchestrator.journal.log import read_log
from orchestrator.journal.records import RoundsRecord
from orchestrator.simulate.device import SCENARIOS
from tests.soak.faults import Fault, Outcome
from tests.soak.killed_runs import Ended, Run, Timeline, environment, was_refused
from tests.support.bundle_world import make_bundle
from tests.support.bundle_world import run as run_bundle
from tests.support.sample_places import sample_places
from tests.support.training import write_gratings
from tests.support.winner_world import make_lut
from tools.benchmarks.fleet import account

CACHE = Path("build/soak/kills")
"""Undisturbed runs and exported models, by what they depend on."""

KILLS = {1: 2, 2: 3, 3: 3, 4: 2}
"""Number of kills in a row -> how often: all but the first hit a run that resumes."""

SCENARIO = SCENARIOS["quiet"].model_copy(update={"name": "mine", "noise_seed": 1})

SPACE = ("--space", "autovit-nano")


class UnfinishedError(Exception):
    """A run that was not killed failed, or did not end."""


@dataclass
class Damage:
    """What a killed and resumed run lost, counted twice or did otherwise than an undisturbed one."""

    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    def check(self, same: bool, what: str) -> None:
        if not same:
            self.wrong.append(what)

    def compare_lists(self, own: Sequence[object], expected: Sequence[object]) -> None:
        """Count what is missing of `expected`, and what is there more often."""
        left, had = Counter(own), Counter(expected)
        self.lost += (had - left).total()
        self.doubled += (left - had).total()


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed run: its inputs, the folder of its outputs, and how it went."""

    inputs: Path
    home: Path
    timeline: Timeline


@dataclass(frozen=True)
class Killed(ABC):
    """A command whose runs are killed; everything that a run writes is below a folder `home`.

    Attributes:
        name: Name of the fault.
        seeds: Tries of a complete soak.
        cache: Folder of undisturbed runs.
        variables: Further environment variables.
        processes: Processes that torchrun starts, if more than one.
    """

    name: str
    seeds: int
    cache: Path = CACHE
    variables: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    @abstractmethod
    def make_inputs(self, folder: Path) -> None:
        """Write what runs need and do not change."""

    @abstractmethod
    def arguments(self, inputs: Path) -> Sequence[object]:
        """The arguments of `bench` in the folder `home`."""

    @abstractmethod
    def compare(self, home: Path, whole: Undisturbed, damage: Damage) -> None:
        """Add what a finished run in `home` lost, doubled or has otherwise than an undisturbed one."""

    def set_up(self, inputs: Path, home: Path) -> None:  # noqa: B027 - most runs start in an empty folder
        """Write what a run changes."""

    @property
    @abstractmethod
    def grows(self) -> str:
        """Pattern of the files that only grow, line by line, and whose size is the progress of a run."""

    def explains(self, ended: Ended) -> bool:
        """Whether a run that lost one of its processes said so as a user can read it."""
        return was_refused(ended)

    def was_done(self, ended: Ended) -> bool:
        """Whether a run found that it had been killed at its very end."""
        return False

    def fault(self) -> Fault:
        return Fault(f"kills: {self.name}", self.run, self.seeds, self.missing)

    def missing(self) -> str:
        return ""

    @property
    def exports(self) -> bool:
        """Whether a run exports models for minutes, which later runs find in the cache."""
        return False

    def run(self, seed: int, folder: Path) -> Outcome:
        """Kill a run once to four times, resume it to its end, and compare it with an undisturbed one."""
        whole, rng = self.undisturbed(), random.Random(f"{self.name} {seed}")
        left, kills, kept = rng.choices([*KILLS], [*KILLS.values()])[0], 0, list[tuple[Path, bytes]]()
        self.set_up(whole.inputs, folder)
        damage = Damage()
        while True:
            run = self.start(whole.inputs, folder)
            if left:
                ended = run.kill(
                    whole.timeline.draw(rng, self.progress(folder)), lambda: self.progress(folder), rng
                )
                left, kills = left - 1, kills + ended.killed
            else:
                ended = run.end()
            damage.check(not ended.orphans, f"left behind: {'; '.join(ended.orphans)}")
            if ended.hung:
                return Outcome(kills, hung=1, detail=f"seed {seed}: {ended.said[-300:]}")
            if ended.code == 0 or self.was_done(ended):
                break
            if ended.code > 0 and not (ended.killed and self.explains(ended)):
                return Outcome(
                    kills, wrong=1, detail=f"seed {seed}: exit code {ended.code}: {ended.said[-300:]}"
                )
            kept += [(path, _whole_lines(path)) for path in self.growing(folder)]
        for path, before in kept:
            damage.lost += _missing_lines(before, path.read_bytes() if path.exists() else b"")
        self.compare(folder, whole, damage)
        detail = f"seed {seed}: {'; '.join(damage.wrong)}"[:500]
        return Outcome(kills, damage.lost, damage.doubled, len(damage.wrong[:1]), 0, detail)

    def start(self, inputs: Path, home: Path) -> Run:
        variables = environment(home, self.cache.absolute() / "exports", **self.variables)
        return Run(self.arguments(inputs), variables, home, self.processes)

    def progress(self, home: Path) -> int:
        """Bytes in the growing files."""
        sizes = 0
        for path in self.growing(home):
            with contextlib.suppress(FileNotFoundError):  # an import that resumes makes its journal again
                sizes += path.stat().st_size
        return sizes

    def growing(self, home: Path) -> Sequence[Path]:
        return list(home.glob(self.grows)) if self.grows else []

    def undisturbed(self) -> Undisturbed:
        """An undisturbed run of the same inputs, from the cache where it is there.

        Raises UnfinishedError: it failed.
        """
        folder = self.cache.absolute() / f"{self.name.replace(' ', '-')}-{self._key()}"
        inputs, home, noted = folder / "inputs", folder / "home", folder / "timeline.json"
        if not noted.exists():
            shutil.rmtree(folder, ignore_errors=True)
            inputs.mkdir(parents=True)
            home.mkdir()
            self.make_inputs(inputs)
            if self.exports:
                warm_up = inputs / "warm-up"
                warm_up.mkdir()
                self.set_up(inputs, warm_up)
                self.start(inputs, warm_up).end()
            self.set_up(inputs, home)
            timeline, ended = self.start(inputs, home).timeline(lambda: self.progress(home))
            if ended.code != 0:
                raise UnfinishedError(f"{self.name}: the undisturbed run failed: {ended.said[-500:]}")
            write_json(noted, [timeline.changes, timeline.end_s])
        changes, end_s = json.loads(noted.read_text())
        return Undisturbed(inputs, home, Timeline(tuple(map(tuple, changes)), end_s))

    def _key(self) -> str:
        return _sources() + hashlib.sha256(f"{self.arguments(Path())} {sys.version}".encode()).hexdigest()[:8]


@functools.cache
def _sources() -> str:
    """Digest of what decides an undisturbed run, apart from its arguments."""
    digests = [source_digest(ROOT / name) for name in ("luts", "search", "orchestrator")]
    return hashlib.sha256(f"{digests} {Path(__file__).read_text()}".encode()).hexdigest()[:8]


def _whole_lines(path: Path) -> bytes:
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1]


def _missing_lines(before: bytes, after: bytes) -> int:
    """Lines of a growing file that are not where they were."""
    pairs = zip(before.splitlines(), after.splitlines() + [b""] * before.count(b"\n"), strict=False)
    return sum(own != other for own, other in pairs)


def _files(folder: Path) -> Iterator[str]:
    """Names of files below a folder, without locks."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(".lock"):
            yield path.relative_to(folder).as_posix()


def check_files(own: Path, other: Path, damage: Damage, differing: Sequence[str] = ()) -> None:
    """Compare two folders: the same files with the same bytes, but for the names of `differing`."""
    names, expected = list(_files(own)), list(_files(other))
    damage.check(names == expected, f"other files: {sorted({*names} ^ {*expected})}")
    for name in set(names) & set(expected):
        if Path(name).name not in differing:
            damage.check((own / name).read_bytes() == (other / name).read_bytes(), f"{name} differs")


def the_lut(home: Path, damage: Damage) -> Lut:
    """The only LUT of a run, verified."""
    written = LutStore([home / "luts"]).list()
    damage.check([ref.version for ref in written] == [1], f"versions: {', '.join(map(str, written))}")
    return verify_lut(written[0].path)


def check_measured(home: Path, whole: Undisturbed, damage: Damage) -> None:
    """Compare the journal with the LUT, and both with an undisturbed run's plan."""
    (journal,) = home.glob("run*/**/journal.jsonl")
    records = read_log(journal)
    damage.doubled += sum(count - 1 for count in Counter(sample_places(records)).values())
    rounds: dict[int, set[int]] = {}
    for record in records:
        if isinstance(record, RoundsRecord) and not record.rejected:
            numbers = range(record.first_round, record.first_round + len(record.order))
            rounds.setdefault(record.batch, set()).update(numbers)
    damage.lost += sum(max(numbers) + 1 - len(numbers) for numbers in rounds.values())
    lut = the_lut(home, damage)
    expected = read_lut(next(iter(LutStore([whole.home / "luts"]).list())).path)
    damage.lost += len(sample_places(records)) - len(lut.samples)
    for what in ("entries", "models"):
        name = "key" if what == "entries" else "model_id"
        own, other = ([getattr(one, name) for one in getattr(each, what)] for each in (lut, expected))
        damage.check(own == other, f"other {what}")
    damage.check(not lut.meta.failures, f"left out: {lut.meta.failures}")


@dataclass(frozen=True)
class KilledProfile(Killed):
    """`bench profile` of a simulated device, or of this machine with the real runtime."""

    device: str = "simulated:scenario.json"
    plan: tuple[object, ...] = ("--design", 8, "--heldout", 3, "--removals", "none")

    def make_inputs(self, folder: Path) -> None:
        (folder / "scenario.json").write_text(SCENARIO.model_dump_json())

    def set_up(self, inputs: Path, home: Path) -> None:
        shutil.copy(inputs / "scenario.json", home)

    def arguments(self, inputs: Path) -> Sequence[object]:
        how = ("--device", self.device, "--threads", 1, "--budget", "1s", "--no-self-test", "--from", "none")
        return ("profile", *how, *SPACE, *self.plan, "--run", "run", "--reuse")

    @property
    def grows(self) -> str:
        return "run/journal.jsonl"

    @property
    def exports(self) -> bool:
        return self.device == "host"

    def compare(self, home: Path, whole: Undisturbed, damage: Damage) -> None:
        check_measured(home, whole, damage)
        if self.device != "host":  # a busy machine may have no quiet batch of a model in a pass
            damage.lost += account(read_log(home / "run" / "journal.jsonl")).missing
        name = (home / "run" / "result.txt").read_text().strip()
        damage.check(Path(name).name == "v1", f"the run's result is {name}")


@dataclass(frozen=True)
class KilledFleet(Killed):
    """`bench fleet` of two simulated phones, in processes of Ray."""

    def make_inputs(self, folder: Path) -> None:
        (folder / "scenario.json").write_text(SCENARIO.model_dump_json())

    def arguments(self, inputs: Path) -> Sequence[object]:
        devices = f"simulated:{inputs / 'scenario.json'}=2"
        return (
            "fleet",
            "--devices",
            devices,
            *SPACE,
            "--models",
            12,
            "--budget",
            "1s",
            "--no-self-test",
            "--reuse",
        )

    @property
    def grows(self) -> str:
        return "runs/*/journal.jsonl"

    def missing(self) -> str:
        return missing_ray()

    def compare(self, home: Path, whole: Undisturbed, damage: Damage) -> None:
        check_measured(home, whole, damage)
        (journal,) = home.glob(self.grows)
        damage.lost += account(read_log(journal)).missing


def missing_ray() -> str:
    return "" if importlib.util.find_spec("ray") else "the extra `cluster` is not installed"


@dataclass(frozen=True)
class KilledImport(Killed):
    """`bench import` of the journal that an agent left when it ran a bundle."""

    def make_inputs(self, folder: Path) -> None:
        make_bundle(folder / "nano.bundle")
        run_bundle(folder / "nano.bundle", folder, SCENARIO)

    def arguments(self, inputs: Path) -> Sequence[object]:
        return ("import", inputs / f"{SCENARIO.name}.jsonl")

    def was_done(self, ended: Ended) -> bool:
        return "imported as" in ended.said

    @property
    def grows(self) -> str:
        return "runs/*/journal.jsonl"

    def compare(self, home: Path, whole: Undisturbed, damage: Damage) -> None:
        check_measured(home, whole, damage)
        (own,), (other,) = (LutStore([place / "luts"]).list() for place in (home, whole.home))
        check_files(own.path, other.path, damage, ["lut.json"])
        documents = [json.loads((ref.path / "lut.json").read_text()) for ref in (own, other)]
        for document in documents:
            del document["created"], document["digest"]
        damage.check(documents[0] == documents[1], "lut.json differs")


RECIPE = """
epochs = 8
batch_size = 16
micro_batches = 2
learning_rate = 2e-3
warmup_epochs = 1
held_out = 0.2
save_epochs = 2
ema_decay = 0.9
clip_norm = 1.0
drop_path = 0.2
"""
"""Four steps an epoch; moments, averages and dropped paths are states that a checkpoint has to restore."""


def steps_of(log: Path) -> list[int]:
    return [int(row.partition(",")[0]) for row in log.read_text().splitlines()[1:]]


def train(inputs: Path, output: str, *further: object) -> Sequence[object]:
    how = ("--data", f"imagefolder:{inputs / 'images'}", "--recipe", inputs / "recipe.toml", "--on", "cpu")
    return ("train", *SPACE, *how, *further, "-o", output)


@dataclass(frozen=True)
class KilledTraining(Killed):
    """`bench train` in one process, or by torchrun in several."""

    def make_inputs(self, folder: Path) -> None:
        write_gratings(folder / "images", 40)
        (folder / "recipe.toml").write_text(RECIPE)

    def arguments(self, inputs: Path) -> Sequence[object]:
        return train(inputs, "supernet")

    @property
    def grows(self) -> str:
        return ""

    def progress(self, home: Path) -> int:
        """Steps done, as the run reports them."""
        reported = (home / "said.txt").read_text() if (home / "said.txt").exists() else ""
        return max((int(number) for number in re.findall(r"training \((\d+)/", reported)), default=0)

    def explains(self, ended: Ended) -> bool:
        if self.processes == 1:
            return was_refused(ended)
        return "Signal 9 (SIGKILL)" in ended.said  # torchrun reports which of its processes was killed

    def compare(self, home: Path, whole: Undisturbed, damage: Damage) -> None:
        own, other = home / "supernet", whole.home / "supernet"
        damage.compare_lists(steps_of(own / "log.csv"), steps_of(other / "log.csv"))
        check_files(own, other, damage, ["log.csv", "checkpoint.json"])
        for name in ("checkpoint.json", "best/checkpoint.json"):
            documents = [json.loads((folder / name).read_text()) for folder in (own, other)]
            for document in documents:
                del document["code"], document["sha256"], document["source"]
            damage.check(documents[0] == documents[1], f"{name} differs")


@dataclass(frozen=True)
class KilledSearch(Killed):
    """`bench search` with two workers, in processes or on Ray."""

    cluster: bool = False

    def make_inputs(self, folder: Path) -> None:
        write_gratings(folder / "images", 40)
        (folder / "recipe.toml").write_text(RECIPE)
        variables = environment(folder, self.cache.absolute() / "exports")
        ended = Run(train(folder, "supernet", "--epochs", 1), variables, folder).end()
        if ended.code != 0:
            raise UnfinishedError(ended.said[-500:])

    def set_up(self, inputs: Path, home: Path) -> None:
        shutil.copytree(inputs / "supernet", home / "supernet")
        LutStore([home / "luts"]).write(make_lut())

    def arguments(self, inputs: Path) -> Sequence[object]:
        limits = ("--lut", "host", "--latency", "95%", "--confidence", "0.8", "--additive", "0%")
        how = (
            "--population",
            12,
            "--generations",
            1,
            "--workers",
            2,
            *(("--cluster",) if self.cluster else ()),
        )
        return ("search", *limits, *how, "--supernet", "supernet", "-o", "found")

    @property
    def grows(self) -> str:
        return "supernet/accuracies.jsonl"

    @property
    def exports(self) -> bool:
        return True

    def missing(self) -> str:
        return missing_ray() if self.cluster else ""

    def compare(self, home: Path, whole: Undisturbed, damage: Damage) -> None:
        archs = [
            [json.loads(line)["arch"] for line in (folder / self.grows).read_text().splitlines()]
            for folder in (home, whole.home)
        ]
        damage.compare_lists(*archs)
        check_files(home / "found", whole.home / "found", damage, ["result.json", "winner.md"])
        results = [
            json.loads((folder / "found" / "result.json").read_text()) for folder in (home, whole.home)
        ]
        for result in results:
            del result["provenance"]["code"]
        damage.check(results[0] == results[1], "result.json differs")


COMMANDS: tuple[Killed, ...] = (
    KilledProfile("profile simulated", 16),
    KilledProfile(
        "profile host", 8, device="host", plan=("--design", 3, "--heldout", 2, "--removals", "none")
    ),
    KilledTraining("train", 10),
    KilledTraining("train by two", 6, processes=2),
    KilledSearch("search", 10),
    KilledSearch("search on Ray", 6, cluster=True),
    KilledFleet("fleet", 12),
    KilledImport("import", 10),
)

FAULTS: list[Fault] = [command.fault() for command in COMMANDS]
