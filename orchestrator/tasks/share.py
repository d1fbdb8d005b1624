"""Share LUTs: push, pull and list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from luts.format.store import LutStore, lut_store
from luts.share import repository as shared
from luts.share.location import location
from luts.share.repository import Pulled, Repository, SharedLut

Warn = Callable[[str], None]


def push_lut(lut: str, url: str, store: LutStore | None = None, warn: Warn = print) -> tuple[SharedLut, bool]:
    """Verify a LUT and upload it; return its entry in the repository, and whether it is new there.

    Args:
        lut: Its name or folder.
        url: A folder, `s3://bucket/folder` or `hf://datasets/user/name`.
        store: LUTs of this machine.
        warn: Called with one line about each entry of the repository that can't be read.

    Raises:
        UsageError: an unknown LUT, or the repository is read-only.
        InvalidArtifactError: it does not verify.
        StorageError: the repository can't be reached or written.
    """
    ref = (store or lut_store()).resolve(lut)
    return shared.push(Repository(location(url), warn), ref.path)


def pull_lut(
    url: str,
    lut: str,
    store: LutStore | None = None,
    public_key: Path | None = None,
    verify: bool = True,
    warn: Warn = print,
) -> Pulled:
    """Download a LUT, verified, as the next version of its name.

    Args:
        url: As in `push_lut`, or `https://`.
        lut: `device/space/variant`, parts of it that fit one name, or the first digits of its digest.
        store: LUTs of this machine; it is written to the first folder.
        public_key: The key that must have signed it.
        verify: Whether its entries are recomputed; otherwise it is marked `unverified`.
        warn: Called with one line about each entry of the repository that can't be read.

    Raises:
        UsageError: no LUT, or several, have such a name.
        InvalidArtifactError: it is damaged, does not verify, or is not signed by the key; nothing is written.
        StorageError: the repository can't be reached.
    """
    return shared.pull(Repository(location(url), warn), lut, store or lut_store(), public_key, verify)


def shared_luts(url: str, warn: Warn = print) -> list[SharedLut]:
    """List all LUTs of a repository as its index describes them. Raises StorageError."""
    return Repository(location(url), warn).luts()
