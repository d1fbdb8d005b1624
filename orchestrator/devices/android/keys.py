"""The RSA key by which phones know this computer: the one of adb itself, made here where there is none."""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import socket
import struct
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from luts.format.errors import StorageError
from orchestrator.wire.errors import DeviceError

_BITS = 2048
_WORDS = _BITS // 32


def default_key_path() -> Path:
    """Where adb keeps its key, so that a phone that knows adb needs not be asked again."""
    return Path.home() / ".android" / "adbkey"


class AdbKey:
    """Signs what a phone asks for, and introduces itself to a phone that does not know it yet."""

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        self._private = private

    def sign(self, token: bytes) -> bytes:
        """Signature of a phone's 20 random bytes, which adb treats as a SHA-1 digest."""
        return self._private.sign(token, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))

    def public_text(self) -> bytes:
        """The public key in Android's form: base64 of its struct, then a name that the phone's dialog shows."""
        try:
            user = getpass.getuser()
        except (OSError, KeyError):
            user = "unknown"
        key = self._private.public_key().public_numbers()
        return base64.b64encode(_android_public_key(key)) + f" {user}@{socket.gethostname()}".encode()


def load_or_make(path: Path | None = None) -> AdbKey:
    """The key in `path` (adb's own by default), made with mode 0600 where there is none.

    DeviceError for a file that is not an RSA key of 2048 bits, StorageError where it can't be written.
    """
    path = path or default_key_path()
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise DeviceError(f"can't read the adb key {path} ({error.strerror}); allow this user to") from None
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, rsa.RSAPrivateKey) or private.key_size != _BITS:
        raise DeviceError(
            f"{path} is not an adb key (RSA, 2048 bits); move it away and run the command again"
        )
    return AdbKey(private)


def _make(path: Path) -> AdbKey:
    key = AdbKey(rsa.generate_private_key(public_exponent=65537, key_size=_BITS))
    pem = key._private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it 0600; the link fails where another process was first, whose key then counts.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".adbkey-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
                path.with_name(path.name + ".pub").write_bytes(key.public_text())
        finally:
            Path(temporary).unlink()
    except OSError as error:
        raise StorageError(
            f"can't write the adb key {path} ({error.strerror}); make room or allow it"
        ) from None
    return load_or_make(path)


def _android_public_key(key: rsa.RSAPublicNumbers) -> bytes:
    """struct RSAPublicKey of AOSP's libcrypto_utils/android_pubkey.c: words, -1/n mod 2^32, n, R^2 mod n, e."""
    n0inv = pow(-key.n, -1, 1 << 32)
    r_squared = pow(1 << _BITS, 2, key.n)
    modulus = key.n.to_bytes(_BITS // 8, "little")
    return (
        struct.pack("<2I", _WORDS, n0inv)
        + modulus
        + r_squared.to_bytes(_BITS // 8, "little")
        + struct.pack("<I", key.e)
    )
