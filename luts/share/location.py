"""Files under a URL: read with a size limit, created once, listed. Nothing here depends on LUTs."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luts.format.errors import BlocktimeError, InvalidArtifactError, StorageError, UsageError, install_extra
from luts.format.files import storage_error, storage_errors, write_atomically

MAX_LISTED = 100_000
"""Most files of a listing that are read."""

CHUNK = 1 << 20
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")


class Location(ABC):
    """A local or remote folder. Paths are relative, of names that the caller has checked."""

    def __init__(self, url: str, writable: bool = True, listed: bool = True) -> None:
        """Describe a folder at an address; whether files can be created in it, and names listed."""
        self.url, self.writable, self.listed = url, writable, listed

    @abstractmethod
    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a file, None if it does not exist.

        Raises:
            InvalidArtifactError: it has more than `limit` bytes, or is not a plain file of this folder.
            StorageError: it can't be reached.
        """

    def exists(self) -> bool:
        """Return False if the folder is known not to exist, before anything is read."""
        return True

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """List the paths of all files in a folder and below. Raises StorageError."""

    @abstractmethod
    def replace(self, path: str, content: bytes) -> None:
        """Write a file, all or nothing, and replace an existing one. Raises StorageError."""

    @abstractmethod
    def _create(self, path: str, content: bytes) -> None:
        """Write a file, all or nothing. Raises FileExistsError."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless it exists; return whether it was written.

        Raises:
            InvalidArtifactError: it exists with other content, which is kept.
            StorageError: the folder can't be written.
        """
        try:
            self._create(path, content)
        except FileExistsError:
            if self.read(path, len(content)) != content:
                raise InvalidArtifactError(
                    f"{self.url}: {path} exists with other content and is kept; "
                    "if a push was interrupted, remove it there",
                    code="other_content_exists",
                ) from None
            return False
        return True


class Folder(Location):
    """A folder of this machine.

    Links are not followed: in a folder that others write they could point anywhere.
    """

    def __init__(self, url: str, root: Path) -> None:
        """Describe the folder `root`, which need not exist."""
        super().__init__(url)
        self._root = root

    def exists(self) -> bool:
        """Return whether the folder exists."""
        return self._root.is_dir()

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a file, None if it does not exist; see `Location.read`."""
        file = self._root / path
        try:
            for part in (file, *file.parents[: len(Path(path).parts) - 1]):
                if part.is_symlink():
                    raise InvalidArtifactError(
                        f"{self.url}: {path} is or contains a link, which is not followed",
                        code="link_not_followed",
                    )
            handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(f"{file} can't be read", error) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise InvalidArtifactError(f"{self.url}: {path} is not a plain file", code="not_a_plain_file")
        with os.fdopen(handle, "rb") as stream:
            return _within(stream.read(limit + 1), path, limit, self.url)

    def names(self, folder: str) -> list[str]:
        """List the paths of all files in a folder and below."""
        found = []
        for parent, _, files in os.walk(self._root / folder):
            found += [(Path(parent) / name).relative_to(self._root).as_posix() for name in files]
            if len(found) > MAX_LISTED:
                break
        return sorted(found)[:MAX_LISTED]

    def replace(self, path: str, content: bytes) -> None:
        """Write a file, all or nothing. Raises StorageError."""
        with storage_errors(f"{self._root / path} not written"):
            write_atomically(self._root / path, content)

    def _create(self, path: str, content: bytes) -> None:
        file = self._root / path
        temporary = f".{file.name}.{os.getpid()}"
        try:
            write_atomically(file.with_name(temporary), content)
            os.link(file.with_name(temporary), file)
        except FileExistsError:
            raise
        except OSError as error:
            raise storage_error(f"{file} not written", error) from error
        finally:
            file.with_name(temporary).unlink(missing_ok=True)


class Remote(Location):
    """A folder of a remote service, through fsspec."""

    def __init__(self, url: str, system: Any, writable: bool, exclusive: bool) -> None:
        """Describe a remote folder, through fsspec's file system.

        `exclusive`: whether the service itself refuses to create a file that exists.
        """
        super().__init__(url, writable, listed=writable)
        self._system, self._exclusive = system, exclusive
        self._root = system._strip_protocol(url).rstrip("/")

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a file, None if it does not exist; see `Location.read`."""
        with self._storage_errors():
            try:
                with self._system.open(f"{self._root}/{path}", "rb") as stream:
                    content = bytearray()
                    while len(content) <= limit and (
                        chunk := stream.read(min(CHUNK, limit + 1 - len(content)))
                    ):
                        content += chunk
            except FileNotFoundError as error:  # also raised by fsspec's web client for a failed connection
                if error.__cause__ is not None and _unreachable(error.__cause__):
                    raise StorageError(
                        f"{self.url}: {_first_line(error.__cause__)}; {_REMEDY}", code="unreachable"
                    ) from error
                return None
            return _within(bytes(content), path, limit, self.url)

    def names(self, folder: str) -> list[str]:
        """List the paths of all files in a folder and below. Raises StorageError."""
        with self._storage_errors():
            self._system.invalidate_cache()
            try:
                found = self._system.find(f"{self._root}/{folder}")
            except FileNotFoundError:
                return []
            return sorted(str(name).removeprefix(f"{self._root}/") for name in found[:MAX_LISTED])

    def replace(self, path: str, content: bytes) -> None:
        """Write a file. Raises StorageError."""
        with self._storage_errors():
            self._system.pipe_file(f"{self._root}/{path}", content)
            self._system.invalidate_cache()

    def _create(self, path: str, content: bytes) -> None:
        whole = f"{self._root}/{path}"
        with self._storage_errors():
            if self._exclusive:
                self._system.pipe_file(whole, content, mode="create")
            elif self._system.exists(whole):
                raise FileExistsError(whole)
            else:
                self._system.pipe_file(whole, content)
            self._system.invalidate_cache()

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Turn the errors of four services' clients, a dozen classes, into StorageError."""
        try:
            yield
        except (BlocktimeError, FileExistsError):
            raise
        except Exception as error:
            raise StorageError(f"{self.url}: {_first_line(error)}; {_REMEDY}", code="unreachable") from error


_REMEDY = "check the address, the network and your credentials"


def _unreachable(cause: BaseException) -> bool:
    if isinstance(cause, OSError):
        return not isinstance(cause, FileNotFoundError)
    return getattr(cause, "status", 404) not in (404, 410)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _within(content: bytes, path: str, limit: int, url: str) -> bytes:
    if len(content) > limit:
        raise InvalidArtifactError(
            f"{url}: {path} has more than {limit} bytes, the size in the index or the limit", code="too_large"
        )
    return content


def location(url: str) -> Location:
    """Return the folder at a URL: a path or `file:`, `s3://`, `hf://`, `https://`.

    Raises UsageError: another scheme, an archive, or the extra `share` is not installed.
    """
    scheme, colon, rest = url.partition(":")
    if "::" in url or url.endswith(ARCHIVES):
        raise UsageError(
            f"{url}: is an archive or a chain of URLs; unpack it and give its folder", code="unsupported_url"
        )
    if not colon or scheme == "file" or len(scheme) == 1:
        path = rest if colon and scheme == "file" else url
        return Folder(url, Path(path.removeprefix("//")).expanduser().absolute())
    if scheme not in ("s3", "hf", "https", "http") or not rest.startswith("//"):
        raise UsageError(f"{url}: expected a folder, s3://…, hf://… or https://…", code="unsupported_url")
    try:
        import fsspec

        options = {"expand_info": False} if scheme == "hf" else {"use_listings_cache": False}
        system = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except ImportError as error:
        raise UsageError(
            f"{scheme}: needs {error.name}; {install_extra('share')}", code="package_missing"
        ) from error
    return Remote(url, system, writable=not scheme.startswith("http"), exclusive=scheme == "s3")
