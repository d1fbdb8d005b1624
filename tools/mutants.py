"""Mutation testing: make one mistake of a list at a time, and see whether the nearest tests notice.

    python -m tools.mutants [--list FILE] [--results FILE] [PATH...]

Each mistake is made in a temporary copy of the working tree. Results are written as they come, so a stopped run
resumes. A killed mutant is not run again unless its file changes, a survivor unless its file or its tests change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

LIMIT_S = 900
"""Tests that run longer hang, which counts as noticed."""

PRELOADED = ("pytest", "numpy", "scipy.optimize", "pyarrow.parquet", "pydantic", "torch")
"""Imported once, before the process of each mutant is forked: importing takes longer than most tests."""


def mutated(source: str, mutant: dict[str, Any]) -> str:
    """Return a file's text with `new` in place of `old`; exit with a message unless it has `old` once."""
    if source.count(mutant["old"]) != 1:
        sys.exit(
            f"mutants: {mutant['file']} has {source.count(mutant['old'])} times {mutant['old']!r}; mend the list"
        )
    return source.replace(mutant["old"], mutant["new"])


def digest(*texts: str) -> str:
    """Return a digest of several texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _run(tree: Path, tests: list[str]) -> None:
    """Run tests in the copy and exit with pytest's status; called in a process of its own."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))
    sys.modules.pop("tools", None)
    sys.exit(int(import_module("pytest").main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests])))


def passes(tree: Path, tests: list[str]) -> bool:
    """Return whether tests pass in the copy; exit with a message where pytest can't run them."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(tree, tests))
    process.start()
    process.join(LIMIT_S)
    if process.is_alive():
        process.kill()
        return False
    if process.exitcode not in (0, 1, 2):
        sys.exit(f"mutants: pytest {' '.join(tests)} ended with status {process.exitcode}; mend the list")
    return process.exitcode == 0


def copy_tree(root: Path, tree: Path) -> None:
    """Copy all files that git tracks or would track."""
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, text=True)
    for name in filter(lambda name: (root / name).is_file(), listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, tree / name)


def survives(tree: Path, mutant: dict[str, Any], number: int, known: dict[str, str]) -> bool:
    """Return whether the near tests pass with a mutant, as `known` or by running them; add the result to it."""
    path, tests = tree / mutant["file"], mutant["tests"]
    source = path.read_text()
    key = digest(mutated(source, mutant), *tests)
    survived = digest(*((tree / test).read_text() for test in tests if (tree / test).is_file()))
    if known.get(key) not in ("killed", survived):
        path.write_text(mutated(source, mutant))
        os.utime(path, (number, number))  # so that no bytecode of another mutant is taken for this one's
        known[key] = survived if passes(tree, tests) else "killed"
        path.write_text(source)
    return known[key] == survived


def main() -> None:
    """Run the mutants of the files under PATH, by default all; print each result and the total."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders whose mutants to run")
    parser.add_argument("--list", type=Path, default=Path("tools/mutants.toml"), help="mutants: a TOML file")
    parser.add_argument("--results", type=Path, default=Path("build/mutants.json"), help="results so far")
    options = parser.parse_args()
    mutants = tomllib.loads(options.list.read_text())["mutant"]
    mutants = [one for one in mutants if not options.paths or one["file"].startswith(tuple(options.paths))]
    known = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in PRELOADED:
        import_module(name)
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_tree(Path.cwd(), Path(folder))
        for number, one in enumerate(mutants):
            if survives(Path(folder), one, number, known):
                survivors.append(one)
            result = "survived" if one in survivors else "killed"
            print(f"{result:8} {one['file']}: {one['old'].strip()!r} -> {one['new'].strip()!r}", flush=True)
            options.results.write_text(json.dumps(known, indent=1))
        passing = [one["tests"] for one in survivors]
        for tests in {
            " ".join(one["tests"]): one["tests"] for one in mutants if one["tests"] not in passing
        }.values():
            if not passes(Path(folder), tests):
                sys.exit(
                    f"mutants: {' '.join(tests)} fail without any mistake; mend them, their kills say nothing"
                )
    killed = len(mutants) - len(survivors)
    print(f"{killed} of {len(mutants)} killed ({killed / max(len(mutants), 1):.0%})")


if __name__ == "__main__":
    main()
