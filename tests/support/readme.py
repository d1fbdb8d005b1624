"""Commands of a Markdown document, and what it says that they print."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_INDENT = " " * 4
_INLINE = re.compile(r"`((?:bench|make) [a-z][^`]*)`")


@dataclass(frozen=True)
class Example:
    """A command, and the lines that stand under it where it was written with a prompt."""

    command: str
    output: tuple[str, ...] = ()


def examples(document: str) -> list[Example]:
    """Each command once, in order: of indented lines, with a prompt or without, and between backquotes.

    A comment is left out. A line that goes on with options is joined to the one before where that ends with a
    backslash; where it does not, all such lines together are one further variant of that command.
    """
    found: dict[str, Example] = {}
    lines = document.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.startswith(_INDENT):
            for command in _INLINE.findall(line):
                found.setdefault(command, Example(command))
            continue
        text = line.removeprefix(_INDENT)
        if not re.match(r"(\$ )?(bench|make) ", text):
            continue
        while text.endswith("\\"):
            text = f"{text[:-1].rstrip()} {lines[number].strip()}"
            number += 1
        under = []
        while number < len(lines) and _goes_on(lines, number):
            under.append(lines[number].removeprefix(_INDENT))
            number += 1
        command = _command(text)
        if text.startswith("$ "):
            found[command] = Example(command, tuple(under))
            continue
        found[command] = Example(command)
        if under:
            further = " ".join([command, *map(_command, under)]).replace("-o found", "-o found-too")
            found[further] = Example(further)
    return list(found.values())


def _goes_on(lines: Sequence[str], number: int) -> bool:
    """Whether a line still belongs to the command above: indented, or empty with such a one below."""
    line = lines[number]
    if not line:
        return number + 1 < len(lines) and _goes_on(lines, number + 1)
    return line.startswith(_INDENT) and not re.match(r" {4}(\$ )?(bench|make) ", line)


def _command(text: str) -> str:
    return " ".join(text.removeprefix("$ ").split("#")[0].split())


def like(documented: Sequence[str], stdout: str, stderr: str) -> None:
    """That a command printed what is documented, apart from figures.

    All lines of stdout stand in the document in their order, but for those where it has `…`; what the document has
    after them was said on stderr, progress aside.
    """
    wanted, printed, said = _shapes(documented), _shapes(stdout.splitlines()), _shapes(stderr.splitlines())
    whole = "".join(f"{line}\n" for line in printed)
    for count in range(len(wanted), 0, -1):
        if re.fullmatch("".join(map(_pattern, wanted[:count])), whole):
            rest = iter(said)
            missing = [line for line in wanted[count:] if line not in rest]
            assert not missing, f"not said: {missing}, but {said}"
            return
    raise AssertionError("\n".join(["printed otherwise:", *printed, "", "than documented:", *wanted]))


def _pattern(shape: str) -> str:
    return r"(.*\n)*?" if shape == "…" else re.escape(shape) + r"\n"


def _shapes(lines: Sequence[str]) -> list[str]:
    """Lines without figures, frames of tables and widths; which row was chosen counts as a figure."""
    shapes = []
    for line in lines:
        bare = " ".join(re.sub("[\u2500-\u257f]", " ", line).split())
        bare = re.sub(r"((?<!\S)-)?\d[\d.,]*", "#", bare)
        bare = re.sub(r".*\bas measured\b.*", "as measured", re.sub(r"\bchosen$", "-", bare))
        shapes += [bare] if bare else []
    return shapes
