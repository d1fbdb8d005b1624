"""Plain detached Ed25519 signatures of lut.json, which has the digests of all other files.

A signature is the 64 bytes of RFC 8032, keys are PEM files, so that `openssl` can make and check all of it:

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub
    openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in lut.json -sigfile lut.json.sig
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.json_file import read_bytes

SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 16 << 10


def sign(content: bytes, private_key: Path) -> bytes:
    """The signature of a lut.json. Raises UsageError: no such key, or not one of Ed25519."""
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(_key(private_key), password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--key {private_key}: not a private key without a password in PEM") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(
            f"--key {private_key}: not an Ed25519 key; openssl genpkey -algorithm ed25519 makes one"
        )
    return bytes(key.sign(content))


def check(content: bytes, signature: bytes | None, public_key: Path) -> str:
    """The fingerprint of the key, if the signature is that key's.

    Raises:
        UsageError: no such key, or not one of Ed25519.
        InvalidArtifactError: there is no signature, or it is another's or of another content.
    """
    from cryptography.exceptions import InvalidSignature

    key = _public(public_key)
    if signature is None:
        raise InvalidArtifactError("it is unsigned; leave --key out to take it nevertheless")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise InvalidArtifactError(
            f"its signature is not valid for {public_key}: signed with another key, or changed since"
        ) from None
    return fingerprint(public_key)


def fingerprint(public_key: Path) -> str:
    """Sixteen hexadecimal digits of the sha256 of the 32 bytes of a public key."""
    return hashlib.sha256(_public(public_key).public_bytes_raw()).hexdigest()[:16]


def _public(path: Path) -> Any:
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_public_key(_key(path))
    except ValueError as error:
        raise UsageError(f"--key {path}: not a public key in PEM; openssl pkey -pubout writes it") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"--key {path}: not an Ed25519 key")
    return key


def _key(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_KEY_BYTES, "give a PEM file")
    except InvalidArtifactError as error:
        raise UsageError(f"--key {error}") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError("signatures need cryptography; pip install 'blocktime[share]'") from error
    return ed25519, serialization
