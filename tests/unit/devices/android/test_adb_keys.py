"""The key: adb's own is used, a new one is private and is one that adb can use."""

import base64
import os
import shutil
import stat
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from luts.format.errors import StorageError
from orchestrator.devices.android import keys
from orchestrator.wire.errors import DeviceError


def test_new_key_is_private_and_kept(tmp_path):
    path = tmp_path / "home" / ".android" / "adbkey"
    first = keys.load_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in path.parent.iterdir()) == ["adbkey", "adbkey.pub"]
    assert keys.load_or_make(path).public_text() == first.public_text()
    assert path.with_name("adbkey.pub").read_bytes() == first.public_text()


def test_signature_and_public_key_agree(tmp_path):
    """The struct is decoded by its layout in AOSP's android_pubkey.c, and verifies a signature."""
    key = keys.load_or_make(tmp_path / "adbkey")
    raw = base64.b64decode(key.public_text().split()[0])
    words, n0inv, modulus, r_squared, exponent = struct.unpack("<II256s256sI", raw)
    n = int.from_bytes(modulus, "little")
    assert (words, exponent) == (64, 65537)
    assert (n0inv * n + 1) % 2**32 == 0
    assert int.from_bytes(r_squared, "little") == pow(2, 4096, n)
    token = os.urandom(20)
    public = rsa.RSAPublicNumbers(exponent, n).public_key()
    public.verify(key.sign(token), token, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))


@pytest.mark.skipif(shutil.which("adb") is None, reason="adb is not installed")
def test_key_of_adb_is_used_and_means_the_same(tmp_path):
    path = tmp_path / "adbkey"
    subprocess.run(["adb", "keygen", path], check=True, capture_output=True)
    private = path.read_bytes()
    key = keys.load_or_make(path)
    assert key.public_text().split()[0] == path.with_name("adbkey.pub").read_bytes().split()[0]
    assert path.read_bytes() == private


def test_two_processes_at_once_get_one_key(tmp_path):
    path = tmp_path / "adbkey"
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: keys.load_or_make(path).public_text(), range(4)))
    assert len(set(made)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adbkey", "adbkey.pub"]


def pem(private):
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"not a key", pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))],
    ids=["empty", "text", "short"],
)
def test_foreign_file_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "adbkey"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="is not an adb key"):
        keys.load_or_make(path)
    assert path.read_bytes() == content


def test_no_place_for_a_key(tmp_path):
    (tmp_path / ".android").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="can't write the adb key"):
        keys.load_or_make(tmp_path / ".android" / "adbkey")
