"""adb_shell's USB pipe, which needs libusb; files that import this are skipped where there is none."""

import pytest

try:
    from adb_shell.transport import usb_transport as usb_transport

    from orchestrator.devices.android import usb as usb
except OSError:
    pytest.skip("libusb is not installed (make toolchains does)", allow_module_level=True)
