"""LUTs given to others and taken from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from luts.format.store import LutStore, lut_store
from luts.share import repository as shared
from luts.share.location import location
from luts.share.repository import Pulled, Repository, SharedLut

Tell = Callable[[str], None]


def push_lut(lut: str, url: str, store: LutStore | None = None, tell: Tell = print) -> tuple[SharedLut, bool]:
    """Verify a LUT and put it into a place that others reach; what it is called there, and whether it is new there.

    Args:
        lut: Its name or folder.
        url: A folder, `s3://bucket/folder` or `hf://datasets/user/name`.
        store: Where the LUT is looked for.
        tell: Told of what the place has that can't be read.

    Raises:
        UsageError: there is no such LUT, or the place is only read.
        InvalidArtifactError: it does not verify.
        StorageError: the place can't be reached or refuses.
    """
    ref = (store or lut_store()).resolve(lut)
    return shared.push(Repository(location(url), tell), ref.path)


def pull_lut(
    url: str,
    lut: str,
    store: LutStore | None = None,
    public_key: Path | None = None,
    verify: bool = True,
    tell: Tell = print,
) -> Pulled:
    """Take a LUT from there, verified, as the next version of its name.

    Args:
        url: As in `push_lut`, or `https://`.
        lut: `device/space/variant`, parts of it that fit one name, or the first digits of its digest.
        store: Where it goes.
        public_key: Its signature must be of this key.
        verify: Off, it is not recomputed, and everything says `unverified`.
        tell: Told of what the place has that can't be read.

    Raises:
        UsageError: there is no such LUT, or several.
        InvalidArtifactError: it is damaged, does not verify, or the key did not sign it; nothing was written.
        StorageError: the place can't be reached.
    """
    return shared.pull(Repository(location(url), tell), lut, store or lut_store(), public_key, verify)


def shared_luts(url: str, tell: Tell = print) -> list[SharedLut]:
    """All LUTs of a place as its index describes them: claims until they are pulled. Raises StorageError."""
    return Repository(location(url), tell).luts()
