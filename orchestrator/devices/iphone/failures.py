"""pymobiledevice3's exceptions as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymobiledevice3 import exceptions as pmd

from luts.format.errors import BlocktimeError
from orchestrator.devices.iphone.address import MuxAddress
from orchestrator.devices.iphone.errors import PhoneGoneError, UnreachableError
from orchestrator.wire.errors import DeviceError

_STATES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (pmd.PasswordRequiredError, pmd.PasscodeRequiredError),
        "is locked; unlock it with its passcode and run the same command again",
    ),
    (
        (pmd.PairingDialogResponsePendingError,),
        "still asks whether to trust this computer; unlock it, tap Trust, type its passcode, and run the same "
        "command again",
    ),
    (
        (pmd.UserDeniedPairingError,),
        "was told not to trust this computer; unplug it, plug it in again and tap Trust, then run the same command "
        "again",
    ),
    (
        (pmd.NotPairedError, pmd.FatalPairingError, pmd.InvalidHostIDError),
        "does not trust this computer; unplug it, plug it in again and tap Trust",
    ),
    (
        (pmd.AppInstallError,),
        "refused the app: {reason}; sign it with a profile that holds this phone, for its iOS or an earlier one",
    ),
    (
        (pmd.AfcException,),
        "did not take the app's package: {reason}; free some space on it",
    ),
    (
        (TimeoutError,),
        "does not answer; unlock it, or unplug it and plug it in again",
    ),
)
_ANYTHING_ELSE = "can't be talked to: {reason}; unplug it and plug it in again"


@contextmanager
def explained(udid: str, address: MuxAddress) -> Iterator[None]:
    """Turns what the library raises into UnreachableError, PhoneGoneError or DeviceError.

    An answer that the library does not understand can end in any exception of its parsers. `udid` is empty where
    usbmuxd itself is asked.
    """
    try:
        yield
    except BlocktimeError:
        raise
    except pmd.ConnectionFailedToUsbmuxdError:
        raise UnreachableError(
            f"no usbmuxd answers at {address.describe()}",
            "start it (on Linux: apt install usbmuxd, then plug the iPhone in; macOS has it)",
        ) from None
    except (pmd.DeviceNotFoundError, pmd.NoDeviceConnectedError, pmd.BadDevError):
        raise PhoneGoneError(f"the iPhone {udid} is not attached; connect it by cable") from None
    except Exception as error:
        if not udid:
            raise UnreachableError(
                f"usbmuxd does not answer as it should ({one_line(error)})", "restart it"
            ) from error
        text = next((text for kinds, text in _STATES if isinstance(error, kinds)), _ANYTHING_ELSE)
        raise DeviceError(f"the iPhone {udid} {text.format(reason=one_line(error))}") from error


def one_line(error: BaseException) -> str:
    """An exception in one line: its first, or its kind where it says nothing."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip().rstrip(".")[:300] if lines else type(error).__name__
