"""A phone whose adbd is the real one, as Debian packages it, in namespaces of its own."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.fakephone.bench_app import PHONE_PORT, AgentProgram
from tests.support.fakephone.network import make_in
from tests.support.fakephone.phone import Phone, new_home, shell_environment
from tests.support.fakephone.phone_state import PhoneState

# Any would do: the namespace has no other listener. Local adb servers take 5555 to 5585 for emulators.
ADBD_PORT = 15557
_START_S = 300.0
_STEP_S = 0.02
_CONNECT_S = 60.0
_TOOLS = ("unshare", "nsenter", "setpriv", "mount", "ip")


def why_not(adbd: Path) -> str | None:
    """Why no such phone can be made here; None where it can."""
    if not adbd.is_file():
        return f"no adbd at {adbd}: run tools/toolchains/swift.sh"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)} of util-linux and iproute2"
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
    )
    return f"namespaces can't be made here: {probe.stderr.strip()}" if probe.returncode else None


class Adbd:
    """The daemon's process, in its namespaces, over the folders of a phone's `home`."""

    def __init__(self, program: Path, home: Path, port: int = ADBD_PORT) -> None:
        self.program, self._port = program, port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        new_root = home / "newroot"
        new_root.mkdir()
        # The daemon and its shells end with unshare, and unshare with this process, however that ends.
        namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        enter = [sys.executable, "-IS", str(Path(__file__).with_name("enter_phone.py"))]
        self._process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                *namespaces,
                *enter,
                str(program),
                str(new_root),
                str(home / "root"),
            ],
            env=shell_environment(home) | {"ADBD_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def pid(self) -> int:
        """A process in the daemon's network namespace."""
        return self._process.pid

    @property
    def log(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def dial(self) -> socket.socket:
        """A connection to the daemon. Raises OSError, also while its process still has this one's network."""
        if Path(f"/proc/{self.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            raise ConnectionRefusedError("the daemon has no network of its own yet")
        address = ("127.0.0.1", self._port)
        sock = make_in(self.pid, lambda: socket.create_connection(address, _CONNECT_S))
        sock.settimeout(None)
        return sock

    def await_listening(self) -> None:
        """Raises RuntimeError, with the daemon's log, where it doesn't listen in time."""
        give_up_s = time.monotonic() + _START_S
        while time.monotonic() < give_up_s and self._process.poll() is None:
            try:
                self.dial().close()
            except OSError:
                time.sleep(_STEP_S)
            else:
                return
        raise RuntimeError(f"adbd does not listen: {self.log[-2000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


class AdbdPhone(Phone):
    """Debian's adbd asks no client for its key. The app listens on the phone's own port, inside the namespace."""

    def __init__(
        self,
        adbd: Path,
        program: AgentProgram,
        state: PhoneState | None = None,
        adbd_port: int = ADBD_PORT,
    ) -> None:
        home = new_home()
        self.adbd = Adbd(adbd, home, adbd_port)
        enter = ("nsenter", f"--net=/proc/{self.adbd.pid}/ns/net")
        super().__init__(home, dataclasses.replace(program, port=PHONE_PORT, prefix=enter), state)
        try:
            self.adbd.await_listening()
        except RuntimeError:
            self.adbd.close()
            raise
        self.attach(self.adbd.dial)

    def listen(self, port: int) -> socket.socket:
        return make_in(self.adbd.pid, lambda: socket.create_server(("127.0.0.1", port)))

    def close(self) -> None:
        super().close()
        self.adbd.close()
