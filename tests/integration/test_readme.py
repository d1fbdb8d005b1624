"""README.md and docs/cli.md from top to bottom: their commands in order, in one folder.

Shortened, since they take long:

- `make demo` is its script alone, `tools/demo.sh`, without setting up `.venv`;
- measurements stop after a second without a self-test, profiles have a handful of models, training one epoch,
  searches a handful of networks (`SHORTER`);
- `bench profile` of `autovit-xxs` on this machine and with agents of other languages is planned only;
- the suite has two rows with other networks, `bench blocks` two mixers at 8 px;
- large networks are replaced by small ones (`SMALLER`).

Not run here, only their options checked (`INSTEAD`): `make test`, `bench agent`, bundles (`tests/agents`), fleets,
`bench doctor native` (`tests/native`), `bench breakdown` and runtimes (tests of their own). Phones end with exit
code 3.

Documented output is compared without its figures (`tests/support/readme.py`).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from luts.format.store import LutStore
from orchestrator.suites import Suite, load_suite
from orchestrator.tasks import suite as suite_task
from orchestrator.tasks.networks import named_network
from orchestrator.winner.winner import MeasuredBest
from search.algorithms import SearchResult
from tests.support.agent_programs import require_built
from tests.support.bench import bench
from tests.support.profiling import PLAN
from tests.support.readme import Example, examples, like

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/cli.md")]
EXAMPLES = examples("\n".join(DOCUMENTS))

SECOND = ("--budget", "1s")
SHORTER = {
    "profile": (*PLAN[2:], *SECOND, "--no-self-test"),
    "train": ("--recipe", "demo", "--epochs", "1"),
    "search": ("--population", "6", "--generations", "0", *SECOND),
    "validate": ("-n", "2", *SECOND),
    "measure": (*SECOND, "--no-self-test"),
    "compare": ("--images", "50", *SECOND),
    "sensitivity": ("--images", "20", "--calibration-images", "8"),
    "blocks": ("--blocks", "mha,pool", "--resolution", "8", *SECOND, "--no-self-test"),
}
"""Options after those that README gives; of an option that stands twice, the last counts."""

INSTEAD = {
    "bench profile --device host --space autovit-xxs": ("--plan-only",),
    "bench profile --device host --agent": ("--plan-only",),
    "bench profile --device host --space operators": ("--plan-only",),
    "bench predict": ("--help",),
    "bench measure efficientvit-m5": ("--batch", "1,2", *SECOND, "--no-self-test"),
    "bench measure sustained": ("--duration", "2s"),
    "bench measure suite": SECOND,
    "bench measure runtimes": ("--help",),
    "bench doctor cache": ("--help",),
    "bench search --lut host/autovit-nano --latency": (),
    "bench agent": ("--help",),
    "bench bundle": ("--help",),
    "bench import": ("--help",),
    "bench fleet": ("--help",),
    "bench doctor native": ("--help",),
    "bench lut verify": ("--help",),
    "bench breakdown": ("--help",),
}
"""By how a command begins: options in the place of `SHORTER`."""

PHONES = ("bench profile --device pixel8", "bench profile --device iphone13")
SMALLER = {
    "autovit-xxs-paper": "runs/demo/search/winner.json",
    "efficientvit-m5": "runs/demo/search/winner.json",
    "timm:mobilenetv3_small_100": "timm:test_efficientnet",
    "timm:mobilenetv3_large_100": "timm:test_efficientnet",
}
WORDS = {"LUT=12ms": "linux-x86-64/autovit-nano=12ms", **SMALLER}
IN_SUITES = {
    "autovit-table2": {"MobileNetv3": "timm:test_efficientnet", "AutoViT_XXS": "timm:test_resnet"},
    "efficient-vit-survey": {"RepViT-M0.9": "timm:test_efficientnet", "PiT-Ti": "timm:test_resnet"},
}
"""By suite and its row: the networks that are measured in its place."""


def small_suite(name: str) -> Suite:
    """A packaged suite cut to the networks of `IN_SUITES`."""
    suite, instead = load_suite(name), IN_SUITES[name]
    networks = [each for each in suite.networks if each.row in instead]
    small = [each.model_copy(update={"model": instead[each.row]}) for each in networks]
    return suite.model_copy(update={"networks": tuple(small)})


@pytest.fixture(scope="module")
def home(tmp_path_factory, export_cache):
    """Where all happens, images in `DIR`."""
    home = tmp_path_factory.mktemp("home")
    places = {
        "BLOCKTIME_LUTS": home / "luts",
        "BLOCKTIME_RUNS": home / "mine",
        "BLOCKTIME_CACHE": export_cache,
    }
    digits = load_digits()
    for number in range(200):
        folder = home / "DIR" / str(digits.target[number])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name, place in places.items():
            patch.setenv(name, str(place))
        suites = {name: small_suite(name) for name in IN_SUITES}
        patch.setattr(suite_task, "load_suite", suites.__getitem__)
        yield home


def demo(home: Path) -> None:
    """`tools/demo.sh` with a `bench` that gets the shorter options."""
    program = home / "bin" / "bench"
    program.parent.mkdir()
    cases = "\n".join(
        f'{name}) set -- "$@" {shlex.join(SHORTER[name])};;' for name in ("profile", "train", "search")
    )
    program.write_text(
        f"#!/bin/sh\ncase $1 in\n{cases}\nesac\n"
        f'exec {sys.executable} -c "from orchestrator.cli.entry import main; main()" "$@"\n'
    )
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", ROOT / "tools" / "demo.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (home / "runs/demo/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    for name in ("winner.json", "winner.safetensors", "winner.pte", "winner.mlpackage", "winner.md"):
        assert (home / "runs/demo/search" / name).exists()
    assert LutStore([home / "luts"]).load("host/autovit-nano").meta.measured == "measured"


def make(target: str) -> None:
    """That there is such a target, and that all it needs could be made."""
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.command)
def test_readme(example: Example, home) -> None:
    command = " ".join(WORDS.get(word, word) for word in shlex.split(example.command))
    if command.startswith("make "):
        make(command.removeprefix("make "))
        if command == "make demo":
            demo(home)
        return
    words = command.split()[1:]
    if "--agent" in words:
        require_built(words[words.index("--agent") + 1])
    begins = next((start for start in INSTEAD if command.startswith(start)), None)
    words += INSTEAD[begins] if begins else SHORTER.get(words[0], ())
    done = bench(*words)
    assert done.returncode == (3 if command.startswith(PHONES) else 0), done.stderr
    if example.output:
        like(example.output, done.stdout, done.stderr)


def test_the_demo_found_a_network_that_keeps_its_promises(home) -> None:
    found = SearchResult.load(home / "runs/demo/search/result.json")
    measured = MeasuredBest.load(home / "runs/demo/search/measured.json")
    assert found.winner.latency_high_ms <= found.constraints.latency_ms
    assert measured.models[0].arch == found.winner.arch
    winner = (home / "runs/demo/search/winner.json").read_text()
    assert json.loads(winner) in [json.loads(row.arch) for row in found.evaluated]
    again = bench("eval", "runs/demo/search/winner.json", "--supernet", "runs/demo/supernet", "--json")
    top1 = json.loads(again.stdout)["top1"]
    assert f"{100 * top1:.2f} % top-1" in (home / "runs/demo/search/winner.md").read_text()


@pytest.mark.parametrize("name", SMALLER)
def test_networks_that_are_replaced_by_smaller_ones_exist(name: str) -> None:
    assert any(name in example.command.split() for example in EXAMPLES)
    assert named_network(name)


def test_all_commands_are_documented() -> None:
    listed = bench("--help").stdout.split("Options")[0]
    commands = set(re.findall(r"^  ([a-z]+)  +\S", listed, re.MULTILINE))
    assert commands >= {"profile", "search", "doctor"}
    assert commands - {example.command.split()[1] for example in EXAMPLES} == set()
