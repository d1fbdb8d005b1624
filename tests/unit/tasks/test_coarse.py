"""`bench search` without a supernet: the largest networks within a budget, and nothing said of accuracy."""

import json
import subprocess
import sys

import pytest

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.simulate.device import SCENARIOS
from search.algorithms import Budget
from search.algorithms.study import largest_within
from search.spaces import arch_from_json
from tests.support.bench import bench
from tests.support.search_world import NANO, make_price
from tests.support.simulated_profiles import profile
from tests.support.winner_world import make_lut

PRICED = [(arch, arch.macs().conv_linear, arch.params()) for arch in NANO]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path / "cache"))
    LutStore([tmp_path / "luts"]).write(make_lut())
    return tmp_path


def test_the_largest_of_all_within_the_budget():
    macs, params = sorted(row[1] for row in PRICED)[900], sorted(row[2] for row in PRICED)[1000]
    budget = Budget(latency_ms=1e6, macs=macs, params=params, cautious=False)
    result = largest_within(NANO, make_price(), budget, 30)
    within = [row for row in PRICED if row[1] <= macs and row[2] <= params]
    wanted = sorted(within, key=lambda row: (-row[1], -row[2]))[:30]
    assert [(row.macs, row.params) for row in result.networks] == [(m, p) for _, m, p in wanted]
    assert result.whole
    assert (result.coarse.feasible, result.coarse.feasible_share) == (len(within), len(within) / len(PRICED))
    for row in result.networks:
        arch = row.architecture()
        assert (arch.macs().conv_linear, arch.params()) == (row.macs, row.params)


def test_of_a_few_draws_the_largest_are_kept():
    budget = Budget(latency_ms=1e6, cautious=False)
    few, same = (largest_within(NANO, make_price(), budget, 5, draws=50, seed=1) for _ in range(2))
    assert few == same
    assert not few.whole
    assert few.coarse.feasible <= 51
    best = largest_within(NANO, make_price(), budget, 5)
    assert few.networks[0].macs < best.networks[0].macs


def test_table_json_and_files_say_largest_and_never_accurate(home):
    command = ["search", "--lut", "host", "--latency", "90%", "--top-k", "7", "-o", home / "out"]
    table, document = bench(*command), bench(*command, "--json")
    assert (table.returncode, document.returncode) == (0, 0), table.stderr
    said = json.loads(document.stdout)
    assert (said["trained"], said["largest_by"]) == (False, "conv+linear MACs, then parameters")
    assert len(said["networks"]) == 7
    written = (home / "out" / "largest.json").read_text()
    assert json.loads(written)["largest_by"] == said["largest_by"]
    for text in (table.stdout.replace("says which is accurate", ""), document.stdout, written):
        assert "accura" not in text
    assert "the 7 largest by conv+linear MACs, then parameters" in " ".join(table.stdout.split())
    files = sorted((home / "out" / "networks").glob("*.json"))
    assert [arch_from_json(file.read_text()).to_json() for file in files] == [
        r["arch"] for r in said["networks"]
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--population", "5"], "--population is for a search with a supernet"),
        (["--strategy", "random"], "--strategy is for a search with a supernet"),
        (["--objective", "wide"], "--objective, --data"),
        (["--outside"], "--objective, --data"),
    ],
)
def test_what_only_a_supernet_can_do_is_refused(home, options, why):
    done = bench("search", "--lut", "host", "--latency", "90%", "-o", home / "out", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert why in done.stderr


def test_a_folder_holds_one_search(home):
    command = ["search", "--lut", "host", "-o", home / "out", "--latency"]
    assert bench(*command, "90%").returncode == 0
    assert bench(*command, "90%").returncode == 0
    other = bench(*command, "80%")
    assert other.returncode == 2
    assert "holds a search with another budget" in other.stderr
    (home / "full").mkdir()
    (home / "full" / "result.json").touch()
    full = bench("search", "--lut", "host", "-o", home / "full", "--latency", "90%")
    assert "holds a search with a supernet" in full.stderr


def test_an_impossible_budget_ends_with_5_and_torch_is_never_imported(home):
    code = (
        "import sys; sys.argv[1:] = ['search', '--lut', 'host', '--latency', sys.argv[1], '-o', sys.argv[2]]\n"
        "from orchestrator.cli.main import run\n"
        "try: run()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    for latency, exit_code in (("1us", 5), ("90%", 0)):
        done = subprocess.run(
            [sys.executable, "-c", code, latency, home / "out"], capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_code, done.stderr
        assert done.stderr.endswith("False\n")
    assert done.stdout != ""


def test_the_first_are_measured_with_random_weights_which_is_said(home, tmp_path):
    lut = LutStore([home / "luts"]).write(profile(SCENARIOS["quiet"], tmp_path / "profile").lut)
    command = ["search", "--lut", lut, "--latency", "90%", "-o", home / "out", "--device", "simulated"]
    done = bench(*command, "--top", "2", "--budget", "1s", "--json")
    assert done.returncode == 0, done.stderr
    assert "random weights" in done.stderr
    said = json.loads(done.stdout)
    assert [row["arch"] for row in said["measured"]] == [row["arch"] for row in said["networks"][:2]]
    assert {row["weights"] for row in said["measured"]} == {"random"}


def test_each_lut_needs_a_latency():
    with pytest.raises(UsageError, match="2 latency budgets"):
        budget = Budget(latency_ms=1, further_latency_ms=(1,))
        largest_within(NANO, make_price(), budget, 1)
