"""Archives that `zipfile` opens and can't unpack."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

CENTRAL = b"PK\x01\x02"
METHOD, SIZES = 10, 20
"""Places of the compression and of both sizes in an entry of the central directory."""

STORED, UNKNOWN = 0, 77
DAMAGES: dict[str, list[tuple[int, str, tuple[int, ...]]]] = {
    "unknown compression": [(METHOD, "<H", (UNKNOWN,))],
    "ends too early": [(METHOD, "<H", (STORED,)), (SIZES, "<II", (1 << 16, 1 << 16))],
}


def damage(path: Path, name: str) -> None:
    """Damage the first entry's description; `name` is one of `DAMAGES`."""
    content = bytearray(path.read_bytes())
    for place, form, values in DAMAGES[name]:
        struct.pack_into(form, content, content.index(CENTRAL) + place, *values)
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()
