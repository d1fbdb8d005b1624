"""Documents name files that are there, and commands that work."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("*/README.md"),
    ROOT / "protocol/PROTOCOL.md",
]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
IN_TREE = re.compile(
    r"`((?:luts|search|orchestrator|tests|tools|docs|protocol|native|android_bench|ios_bench)/[\w./-]*)`"
)


VARIABLE = re.compile(r"\bBLOCKTIME_[A-Z_]+")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_it_links_and_names_is_there(document) -> None:
    text = document.read_text(encoding="utf-8")
    gone = {link for link in LINK.findall(text) if not (document.parent / link).exists()}
    gone |= {name for name in IN_TREE.findall(text) if not (ROOT / name).exists()}
    assert not gone


def test_every_environment_variable_is_documented() -> None:
    code = (path for package in ("luts", "search", "orchestrator") for path in (ROOT / package).rglob("*.py"))
    read = {name for path in code for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    output = {name for path in DOCUMENTS for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert read >= {"BLOCKTIME_LUTS", "BLOCKTIME_CACHE"}
    assert read - output == set()


def test_no_index_is_asked_for_this_package() -> None:
    """The name is anybody's there: extras are installed from a checkout."""
    code = (path for folder in ("luts", "search", "orchestrator") for path in (ROOT / folder).rglob("*.py"))
    scripts = (ROOT / "tools").rglob("*.sh")
    by_name = re.compile(r"(?<!-)\bblocktime\[|pip install blocktime\b")
    said = {
        path for path in [*DOCUMENTS, *code, *scripts] if by_name.search(path.read_text(encoding="utf-8"))
    }
    assert not said
