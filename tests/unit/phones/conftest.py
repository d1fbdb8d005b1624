"""Lets the tests of this folder import the made-up phone `winner_world`, and `lut_world` under it."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("winner", "luts")]
