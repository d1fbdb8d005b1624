"""Lets the tests of this folder import `search_openers`, and the made-up phone `winner_world` with its LUT."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / "unit" / name) for name in ("winner", "luts"))]
