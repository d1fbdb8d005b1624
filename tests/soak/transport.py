from __future__ import annotations

from tests.soak.faults import Fault

FAULTS: list[Fault] = []
