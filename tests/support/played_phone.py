"""A phone that is played: its links, its app, its clock."""

import json
import socket
import struct

from orchestrator.devices.android.errors import LinkLost
from orchestrator.devices.android.phones import AndroidPhone

PHONE = AndroidPhone("SERIAL1", "device", "Pixel 8", "usb")
HELLO = {
    "protocol": 1,
    "agent": {"name": "blocktime-android", "version": "1"},
    "device": {
        "model": "Pixel 8", "os": "Android 15", "os_build": None, "soc": None, "cores": 9, "memory_bytes": 1 << 33
    },
    "runtimes": {},
}  # fmt: skip
ON, OFF = (f"cmd power set-fixed-performance-mode-enabled {value}" for value in ("true", "false"))


class Phone:
    """Hands out links whose app listens once it was started, unless told otherwise.

    `agent` decides about one hello from the token: None where nothing listens, `lost` for a hang-up, an error's
    code, or `ok`.
    """

    def __init__(self, make_link):
        self._make_link = make_link
        self.links, self.attached, self.tokens, self.replies = [], True, [], []
        self.running = self.mode_refused = False
        self.token = ""
        self.verdicts, self.kept = [], []
        self.clock = Clock()

    def open_link(self, serial, ask_user=None):
        assert serial == "SERIAL1"
        if isinstance(self.attached, Exception):
            raise self.attached
        if not self.attached:
            raise LinkLost("no phone SERIAL1 on USB")
        self.links.append(self._make_link(self))
        return self.links[-1]

    def unplug(self):
        self.attached = False
        for link in self.links:
            link.lost = True

    @property
    def commands(self):
        return [command for link in self.links for command in link.commands()]


class Clock:
    """Time passes by sleeping; `at` calls a function when a moment comes."""

    def __init__(self):
        self.time_s, self.events = 0.0, []

    def now(self):
        return self.time_s

    def sleep(self, seconds):
        self.time_s += seconds
        for when_s, action in list(self.events):
            if self.time_s >= when_s:
                self.events.remove((when_s, action))
                action()

    def at(self, after_s, action):
        self.events.append((self.time_s + after_s, action))


def played_agent(owner):
    """A socket on whose other end an agent has already answered the first hello, as the phone's state has it."""
    near, far = socket.socketpair()
    with far:
        verdict = owner.verdicts.pop(0) if owner.verdicts else "ok"
        if verdict == "ok":
            verdict = "ok" if owner.token else "unauthorized"
        if verdict != "lost":
            answer = HELLO if verdict == "ok" else {"error": {"code": verdict, "message": "no"}}
            header = json.dumps({"id": 1, **answer}).encode()
            far.sendall(struct.pack(">I", len(header)) + header)
            owner.replies.append(verdict)
        far.shutdown(socket.SHUT_WR)
        # Kept open: the client's request goes into its buffer.
        owner.kept.append(far.dup())
        if len(owner.kept) > 4:
            owner.kept.pop(0).close()
    return near
