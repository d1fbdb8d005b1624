"""Draw what `bench` prints on terminals of 80 and 140 columns: docs/pictures/terminal_*.svg.

    python -m tools.terminal_pictures [FOLDER]

The command runs on a terminal of that width; rich draws its output. Measurements are simulated, and labelled so.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTHS = (80, 140)
HEAD, TAIL = 28, 6
"""Lines of a picture; the middle of longer outputs is cut."""

SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Rich's format without fonts from the network."""

COMMANDS: Mapping[str, str] = {
    "lut_show": "lut show linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1",
    "measure": "measure --device simulated --arch autovit-xxs-paper --model mobilevit-xxs --model mobilevit-xs "
    "--model efficientvit-m0 --budget 1s",
}


def printed(command: str, width: int, home: Path) -> str:
    """Return the standard output of `bench COMMAND` on a terminal of that width, with colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 1000, width, 0, 0))
    environment = os.environ | {
        "TERM": "xterm-256color",
        "COLUMNS": str(width),
        "PAGER": "cat",
        "BLOCKTIME_RUNS": str(home / "runs"),
        "BLOCKTIME_LUTS": str(home / "luts"),
    }
    bench = [sys.executable, "-c", "from orchestrator.cli.entry import main; main()"]
    with subprocess.Popen(
        [*bench, *command.split()], stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ) as running:
        os.close(theirs)
        output = bytearray()
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    if running.returncode:
        raise SystemExit(f"bench {command}: exit code {running.returncode}")
    return output.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the end of a closed terminal on Linux
        return b""


def draw(file: Path, command: str, text: str, width: int) -> None:
    """Write the command and its output as SVG."""
    lines = [f"$ bench {command}", *text.rstrip("\n").split("\n")]
    shown = lines if len(lines) <= HEAD + TAIL else [*lines[:HEAD], "…", *lines[-TAIL:]]
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    for line in shown:
        console.print(Text.from_ansi(line))
    console.save_svg(str(file), title=f"{width} columns", code_format=SVG_FORMAT)


def main(folder: Path) -> None:
    """Draw all."""
    with tempfile.TemporaryDirectory() as home:
        for name, command in COMMANDS.items():
            for width in WIDTHS:
                file = folder / f"terminal_{name}_{width}.svg"
                draw(file, command, printed(command, width, Path(home)), width)
                print(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/pictures"))
