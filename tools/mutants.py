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

LIMIT_S = 300  # tests that run longer hang, which counts as noticed

PRELOADED = ("pytest", "numpy", "scipy.optimize", "pyarrow.parquet", "pydantic", "torch")
"""Imported once, before the process of each mutant is forked: importing takes longer than most tests."""


def copy_tree(root: Path, tree: Path) -> None:
    """Copy all files that git tracks or would track."""
    listed = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, text=True)
    for name in filter(lambda name: (root / name).is_file(), listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, tree / name)


def _run(tree: Path, tests: list[str]) -> None:
    """Run tests in the copy and exit with pytest's status; called in a process of its own."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
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
    process.kill()  # has no effect on a process that has ended
    process.join()
    if process.exitcode not in (0, 1, 2, -9):
        sys.exit(f"mutants: pytest {' '.join(tests)} ended with status {process.exitcode}; mend the list")
    return process.exitcode == 0


def survives(tree: Path, mutant: dict[str, Any], number: int, known: dict[str, str]) -> bool:
    """Return whether the near tests pass with a mutant, as `known` or by running them; add the result to it."""
    path, tests = tree / mutant["file"], mutant["tests"]
    source = path.read_text()
    if (times := source.count(mutant["old"])) != 1:
        sys.exit(f"mutants: {mutant['file']} has {times} times {mutant['old']!r}; mend the list")
    mutated = source.replace(mutant["old"], mutant["new"])
    contents = [(tree / test).read_text() for test in tests if (tree / test).is_file()]
    key, survived = (
        hashlib.sha256("\0".join(texts).encode()).hexdigest() for texts in ([mutated, *tests], contents)
    )
    if known.get(key) not in ("killed", survived):
        path.write_text(mutated)
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
    listed = tomllib.loads(options.list.read_text())["mutant"]
    mutants = [one for one in listed if one["file"].startswith(tuple(options.paths or [""]))]
    known = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in PRELOADED:
        import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree, killed = Path(folder), 0
        copy_tree(Path.cwd(), tree)
        for number, one in enumerate(mutants):
            survived = survives(tree, one, number, known)
            killed += not survived
            change = f"{one['old']!r} -> {one['new']!r}"
            print("survived" if survived else "killed", one["file"], change, flush=True)
            options.results.write_text(json.dumps(known, indent=1))
        for tests in sorted({tuple(one["tests"]) for one in mutants}):
            if not passes(tree, list(tests)):
                sys.exit(f"mutants: {' '.join(tests)} fail without any mistake; mend them first")
    print(f"{killed} of {len(mutants)} killed ({killed / max(len(mutants), 1):.0%})")


if __name__ == "__main__":
    main()
