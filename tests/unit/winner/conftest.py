"""Lets the tests of this folder import their made-up phone, `winner_world`, and `lut_world` under it."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "luts")]
