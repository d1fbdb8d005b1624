"""Measure everything that docs/benchmarks.md states, and write it there: `make bench`.

Every public module of this package has `main() -> str`, the Markdown of its section. Give names of modules to
renew their sections only; the others stay as they were.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import tools.benchmarks
from tools.documents import stamp

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

Written by `make bench`; each section can be renewed alone by the command that stands under it. Every figure was
measured in the run that is dated there, on a shared Linux machine and no phone. Comparisons are interleaved or
side by side in one run.
"""
_SECTION = re.compile(r"<!-- section (\w+) -->\n(.*?)(?=<!-- section |\Z)", re.DOTALL)


def main() -> None:
    """Renew the sections that are named, or all; each is written as soon as it is measured."""
    known = [m.name for m in pkgutil.iter_modules(tools.benchmarks.__path__) if not m.name.startswith("_")]
    wanted = sys.argv[1:] or known
    if unknown := set(wanted) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in wanted:
        print(f"benchmark {name} ...", flush=True)
        measured = importlib.import_module(f"tools.benchmarks.{name}").main().strip()
        sections = _read() | {name: f"{measured}\n\n{stamp(f'python -m tools.benchmarks {name}')}\n"}
        _write([(name, sections[name]) for name in known if name in sections])
    print(DOCUMENT)


def _read() -> dict[str, str]:
    if not DOCUMENT.exists():
        return {}
    return {
        name: f"{body.strip()}\n" for name, body in _SECTION.findall(DOCUMENT.read_text(encoding="utf-8"))
    }


def _write(sections: list[tuple[str, str]]) -> None:
    parts = [INTRODUCTION, *(f"<!-- section {name} -->\n{body}" for name, body in sections)]
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
