"""A usbmuxd of the test's own with an attached iPhone, both played by this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.support.fake_iphone import FakeIphone, PhoneUser
from tests.support.fake_usbmuxd import FakeUsbmuxd
from tests.support.phone_apps import ThreadApp


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, for pymobiledevice3 keeps pair records there."""
    from pymobiledevice3 import common

    folder = tmp_path / "home"
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr(common, "_HOMEFOLDER", folder / ".pymobiledevice3")
    folder.mkdir()
    return folder


@pytest.fixture
def usbmuxd(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUsbmuxd]:
    """A fake usbmuxd with nothing attached, which USBMUXD_SOCKET_ADDRESS points to."""
    with FakeUsbmuxd(tmp_path / "usbmuxd") as daemon:
        monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"UNIX:{daemon.path}")
        monkeypatch.delenv("BLOCKTIME_TOKEN", raising=False)
        monkeypatch.delenv("BLOCKTIME_IOS_APP", raising=False)
        images = "developer_disk_image.repo.DeveloperDiskImageRepository.create"
        monkeypatch.setattr(images, Mock(side_effect=OSError("no internet")))
        yield daemon


@pytest.fixture
def phone(usbmuxd: FakeUsbmuxd, tmp_path: Path) -> Iterator[FakeIphone]:
    """An iPhone 13 with iOS 16 and the app, attached; its agent runs in a thread and has no runtime."""
    phone = FakeIphone(ThreadApp(tmp_path / "store"))
    phone.install_app()
    usbmuxd.plug_in(phone)
    yield phone
    phone.quit_app()


@pytest.fixture
def user(phone: FakeIphone) -> PhoneUser:
    return PhoneUser(phone)
