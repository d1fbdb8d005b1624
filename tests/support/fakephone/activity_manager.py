"""`am`, `content` and `pidof`: the commands that start, stop and address apps."""

from __future__ import annotations

from tests.support.fakephone.bench_app import ACTIVITY, PACKAGE, BenchApp
from tests.support.fakephone.phone_state import PhoneState
from tests.support.fakephone.system_server import Terminal

_AUTHORITY = f"{PACKAGE}.control"
_TOKEN_URI = f"content://{_AUTHORITY}/token"
_TOKEN_CHARS = range(16, 257)


class ActivityManager:
    """Knows one app, the benchmark's; other packages are installed but can't be started."""

    def __init__(self, state: PhoneState, app: BenchApp) -> None:
        self._state = state
        self._app = app

    def stop(self, package: str) -> None:
        """Ends the package's process."""
        if package == PACKAGE:
            self._app.stop()

    def am(self, arguments: list[str], terminal: Terminal) -> int:
        """The command `am`."""
        name, *rest = arguments or [""]
        if name in ("start", "start-activity"):
            return self._start(rest, terminal)
        if name == "force-stop":
            self.stop(rest[-1])
            return 0
        if name == "get-started-user-state":
            return terminal.say("RUNNING_UNLOCKED" if self._state.unlocked_since_boot else "RUNNING_LOCKED")
        return terminal.fail(f"Error: unknown command '{name}'", 255)

    def content(self, arguments: list[str], terminal: Terminal) -> int:
        """`content write --uri …/token`: as on Android, what goes wrong is on stderr and the exit code is 0."""
        if arguments[:1] != ["write"] or "--uri" not in arguments:
            return terminal.fail("[ERROR] Unsupported argument")
        uri = arguments[arguments.index("--uri") + 1]
        token = b"".join(iter(lambda: terminal.stdin.read(_TOKEN_CHARS.stop), b""))
        failure = ""
        if PACKAGE not in self._state.packages or not uri.startswith(f"content://{_AUTHORITY}/"):
            provider = uri.removeprefix("content://").partition("/")[0]
            failure = f"java.lang.IllegalStateException: Could not find provider: {provider}"
        elif uri != _TOKEN_URI:
            failure = f"java.io.FileNotFoundException: no such document: {uri}"
        elif len(token) not in _TOKEN_CHARS or not all(0x21 <= byte <= 0x7E for byte in token):
            failure = "java.io.IOException: a token has 16 to 256 visible ASCII characters"
        else:
            self._app.give_token(token.decode())
        if failure:
            terminal.fail(f"Error while accessing provider:{_AUTHORITY}\n{failure}")
        return 0

    def pidof(self, arguments: list[str], terminal: Terminal) -> int:
        """The command `pidof`."""
        pid = self._app.pid if PACKAGE in arguments else None
        return 1 if pid is None else terminal.say(str(pid))

    def _start(self, arguments: list[str], terminal: Terminal) -> int:
        component = arguments[arguments.index("-n") + 1]
        extras = " (has extras)" if any(argument.startswith("--e") for argument in arguments) else ""
        terminal.say(f"Starting: Intent {{ cmp={component}{extras} }}")
        package, _, activity = component.partition("/")
        full = f"{package}/{package if activity.startswith('.') else ''}{activity}"
        if PACKAGE not in self._state.packages or full != ACTIVITY.replace("/", f"/{PACKAGE}"):
            return terminal.fail(f"Error type 3\nError: Activity class {{{full}}} does not exist.")
        allowed = arguments[arguments.index("allow") + 1].split(",") if "allow" in arguments else []
        self._app.start(allowed)
        self._state.in_front = self._state.screen_on
        return 0
