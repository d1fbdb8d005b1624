"""Peak memory, open files and processor time against the size of what is worked on.

    python -m tests.soak.bounds [--most N] [CASE...]

Every size runs in a process of its own. The exponent is that of processor time between the two largest sizes: 1 is
linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESS_LIMIT_S = 1800


def profile(size: int, folder: Path) -> Callable[[], object]:
    """Profile a simulated device with `size` models, from measuring to the LUT; agent and client in one process."""
    from orchestrator.agent.store import ModelStore
    from orchestrator.export.artifacts.spec import Variant
    from orchestrator.measure.engine import EngineOptions
    from orchestrator.measure.session import measure
    from orchestrator.plan.build import make_plan
    from orchestrator.plan.plan import Policy
    from orchestrator.simulate.__main__ import simulated_agent
    from orchestrator.simulate.device import SCENARIOS, write_model
    from orchestrator.tasks.exported_plan import ExportedPlan
    from search.spaces import get_space
    from tests.support.served_agent import ServedDevice

    plan = make_plan(get_space("autovit-xxs"), design=size - size // 4, heldout=size // 4, removals="none")
    files = {model.model_id: write_model(model.blocks, folder / "models") for model in plan.models}
    policy = Policy(batch_models=15, min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0)

    def run() -> object:
        exported = ExportedPlan(plan, files)
        with ServedDevice(
            simulated_agent(SCENARIOS["quiet"], "token", ModelStore(folder / "store"))
        ) as device:
            measured = measure(
                device,
                Variant("simulated", "", threads=1),
                exported.model_set,
                folder / "journal.jsonl",
                policy,
                EngineOptions(budget_s=0),
            )
            return exported.lut(measured, device.name)

    return run


def build_lut(size: int, folder: Path) -> Callable[[], object]:
    """Fit `size` entries to as many networks of 20 blocks."""
    import numpy as np

    from tests.support.lut_world import make_study, make_world

    generator = np.random.default_rng(0)
    world = make_world(generator, slots=20, choices=max(1, size // 20))
    study = make_study(generator, world, designs=size, segments=1, rounds=5)
    return study.lut


def read_lut(size: int, folder: Path) -> Callable[[], object]:
    """Read a LUT of `size` entries and predict a network of 20 blocks."""
    import numpy as np

    from luts.format.lut import Lut
    from luts.format.store import LutStore
    from tests.support.lut_world import make_study, make_world

    generator = np.random.default_rng(0)
    small = make_study(generator, make_world(generator), designs=20, segments=1, rounds=5).lut()
    kept = list(small.entries)
    copies = [
        kept[0].model_copy(update={"key": f"conv(in=3,out=8,k=3,s=2)@{number + 1}"})
        for number in range(size - len(kept))
    ]
    entries = tuple(sorted([*kept, *copies], key=lambda entry: entry.key))
    large = Lut(small.meta, entries, small.models, small.samples)
    path = LutStore([folder]).write(large)
    blocks = [entry.key for entry in copies[:20]]
    return lambda: LutStore([folder]).load(path).predict(blocks, 0)


def search(size: int, folder: Path) -> Callable[[], object]:
    """Search among `size` feasible architectures, by an objective that costs nothing."""
    from luts.format.store import load_lut
    from search.algorithms import Constraints, LutPrice, SearchSettings, search
    from search.spaces.scope import covered_space
    from tests.support.search_world import Accuracy

    lut = load_lut("linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1")
    price = LutPrice(lut.latency_model, "host", "host")
    settings = SearchSettings(strategy="autovit", draws=size, population=50, generations=2)
    return lambda: search(covered_space(lut), price, Accuracy(), Constraints(latency_ms=12.0), settings)


def read_log(size: int, folder: Path) -> Callable[[], object]:
    """Read a training's log of `size` steps; a day at ten steps a second has 864,000."""
    from search.supernet.train.logs import CLASSIFICATION_COLUMNS, read_log
    from search.supernet.train.supernet_task import LOG_STEPS

    rows = [",".join(CLASSIFICATION_COLUMNS)]
    rows += [
        f"{step},{step // 400 + 1},0.001,2.3,0.1,400.0,224" for step in range(LOG_STEPS, size, LOG_STEPS)
    ]
    path = folder / "log.csv"
    path.write_text("\n".join(rows) + "\n")
    return lambda: read_log(path)


CASES: dict[str, tuple[Callable[[int, Path], Callable[[], object]], tuple[int, ...]]] = {
    "profile": (profile, (125, 250, 500, 1000, 2000)),
    "build-lut": (build_lut, (125, 250, 500, 1000)),
    "read-lut": (read_lut, (1250, 5000, 20_000)),
    "search": (search, (10_000, 100_000, 1_000_000)),
    "read-log": (read_log, (100_000, 1_000_000, 8_640_000)),
}


@contextmanager
def _open_files(most: list[int]) -> Iterator[None]:
    """Note the largest number of open files of this process, looked at every 10 ms."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], len(list(Path("/proc/self/fd").iterdir())))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure_case(name: str, size: int) -> dict[str, float]:
    """Prepare and run a case in this process; return MiB before and at the peak, open files and CPU seconds."""
    make, _ = CASES[name]
    with tempfile.TemporaryDirectory(prefix="bounds-") as folder:
        run, most = make(size, Path(folder)), [0]
        before_kib, start_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with _open_files(most):
            run()
        return {
            "cpu_s": time.process_time() - start_s,
            "before_mib": before_kib / 1024,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "files": most[0],
        }


def _in_process(name: str, size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.soak.bounds", "--size", str(size), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_LIMIT_S, check=False)
    if done.returncode:
        sys.exit(f"bounds: {name} of {size}: {done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _exponent(sizes: list[int], cpu_s: list[float]) -> str:
    if len(sizes) < 2 or min(cpu_s[-2:]) <= 0:
        return ""
    return f"{math.log(cpu_s[-1] / cpu_s[-2]) / math.log(sizes[-1] / sizes[-2]):.1f}"


def main() -> int:
    """Measure all sizes of the cases and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.bounds")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--most", type=int, default=10**9, help="largest size")
    parser.add_argument("--size", type=int, help="measure this size in this process and print JSON")
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    names = options.cases or list(CASES)
    if options.size is not None:
        print(json.dumps(measure_case(names[0], options.size)))
        return 0
    line = "{:<10} {:>10} {:>9} {:>9} {:>11} {:>9} {:>6}"
    print(line.format("case", "size", "CPU s", "exponent", "MiB before", "MiB peak", "files"))
    for name in names:
        sizes: list[int] = []
        cpu_s: list[float] = []
        for size in (size for size in CASES[name][1] if size <= options.most):
            one = _in_process(name, size)
            sizes.append(size)
            cpu_s.append(one["cpu_s"])
            figures = f"{one['before_mib']:.0f}", f"{one['peak_mib']:.0f}", f"{one['files']:.0f}"
            row = (name, f"{size:,}", f"{one['cpu_s']:.2f}", _exponent(sizes, cpu_s), *figures)
            print(line.format(*row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
