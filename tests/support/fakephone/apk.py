"""What a phone reads from an APK before it installs it: the manifest's package and versions."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

_XML, _STRING_POOL, _RESOURCE_MAP, _START_ELEMENT = 0x0003, 0x0001, 0x0180, 0x0102
_UTF8 = 1 << 8
_VERSION_CODE, _VERSION_NAME, _DEBUGGABLE = 0x0101021B, 0x0101021C, 0x0101000F
_STRING_VALUE = 0x03
_MAX_MANIFEST_BYTES = 1 << 20


class InvalidApk(Exception):
    """The file is no APK that a phone would take."""


@dataclass(frozen=True)
class Apk:
    """The part of a manifest that package managers print."""

    package: str
    version_code: int
    version_name: str
    debuggable: bool

    @classmethod
    def read(cls, path: Path) -> Apk:
        """Raises InvalidApk."""
        try:
            with zipfile.ZipFile(path) as archive, archive.open("AndroidManifest.xml") as member:
                data = member.read(_MAX_MANIFEST_BYTES)
            elements = _elements(data)
        except (zipfile.BadZipFile, KeyError, struct.error, IndexError, UnicodeDecodeError) as error:
            raise InvalidApk(f"{type(error).__name__}: {error}") from None
        manifest = elements.get("manifest", {})
        package = manifest.get("package")
        if not isinstance(package, str):
            raise InvalidApk("the manifest names no package")
        return cls(
            package=package,
            version_code=int(manifest.get(_VERSION_CODE, 0)),
            version_name=str(manifest.get(_VERSION_NAME, "")),
            debuggable=bool(elements.get("application", {}).get(_DEBUGGABLE, 0)),
        )


def _elements(data: bytes) -> dict[str, dict[str | int, str | int]]:
    """The first element of each name: its attributes by resource id, or by name where they have none.

    The format is that of AOSP's ResourceTypes.h: chunks of u16 type, u16 header size, u32 size.
    """
    kind, header_size, _ = struct.unpack_from("<HHI", data)
    if kind != _XML:
        raise InvalidApk("the manifest is not binary XML")
    strings: list[str] = []
    resources: tuple[int, ...] = ()
    elements: dict[str, dict[str | int, str | int]] = {}
    start = header_size
    while start < len(data):
        kind, header_size, size = struct.unpack_from("<HHI", data, start)
        if size < 8:
            raise InvalidApk("the manifest has a chunk without a size")
        if kind == _STRING_POOL:
            strings = _strings(data, start)
        elif kind == _RESOURCE_MAP:
            resources = struct.unpack_from(f"<{(size - header_size) // 4}I", data, start + header_size)
        elif kind == _START_ELEMENT:
            name, attributes = _element(data, start + header_size, strings, resources)
            elements.setdefault(name, attributes)
        start += size
    return elements


def _element(
    data: bytes, start: int, strings: list[str], resources: tuple[int, ...]
) -> tuple[str, dict[str | int, str | int]]:
    """Name and attributes of a ResXMLTree_attrExt."""
    _, name, offset, size, count = struct.unpack_from("<IIHHH", data, start)
    attributes: dict[str | int, str | int] = {}
    for index in range(count):
        _, key, _, _, _, kind, value = struct.unpack_from("<IIIHBBI", data, start + offset + index * size)
        attributes[resources[key] if key < len(resources) else strings[key]] = (
            strings[value] if kind == _STRING_VALUE else value
        )
    return strings[name], attributes


def _strings(data: bytes, start: int) -> list[str]:
    """The strings of a ResStringPool, whose lengths take one unit or, over half of its range, two."""
    _, header_size, _, count, _, flags, first, _ = struct.unpack_from("<HHIIIIII", data, start)
    offsets = struct.unpack_from(f"<{count}I", data, start + header_size)
    return [_string(data, start + first + offset, bool(flags & _UTF8)) for offset in offsets]


def _string(data: bytes, at: int, utf8: bool) -> str:
    if not utf8:
        (length,) = struct.unpack_from("<H", data, at)
        return data[at + 2 : at + 2 + 2 * length].decode("utf-16-le")
    at += 2 if data[at] & 0x80 else 1  # the number of characters, which the number of bytes follows
    length = data[at]
    at += 1
    if length & 0x80:
        length = (length & 0x7F) << 8 | data[at]
        at += 1
    return data[at : at + length].decode("utf-8")
