"""Commands that tell or change the phone's state, such as `getprop`, `dumpsys` and `input`."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.fakephone.bench_app import BenchApp
from tests.support.fakephone.phone_state import PhoneState
from tests.support.fakephone.system_server import Command, Terminal


class StatusCommands:
    """Answers in the words of Android 15."""

    def __init__(self, state: PhoneState, app: BenchApp, package_manager: Command) -> None:
        self._state = state
        self._app = app
        self._services: dict[str, Command] = {
            "package": package_manager,
            "deviceidle": self._deviceidle,
            "power": self._set_power,
        }

    def getprop(self, arguments: list[str], terminal: Terminal) -> int:
        if arguments:
            return terminal.say(self._state.properties.get(arguments[0], "".join(arguments[1:2])))
        for name, value in sorted(self._state.properties.items()):
            terminal.say(f"[{name}]: [{value}]")
        return 0

    def cmd(self, arguments: list[str], terminal: Terminal) -> int:
        name, *rest = arguments or [""]
        service = self._services.get(name)
        if service is None:
            return terminal.fail(f"cmd: Can't find service: {name}", 20)
        return service(rest, terminal)

    def dumpsys(self, arguments: list[str], terminal: Terminal) -> int:
        name, *rest = arguments or [""]
        dump: Callable[[list[str]], str] | None = {
            "power": self._power,
            "package": self._package,
        }.get(name)
        if dump is None:
            terminal.fail(f"Can't find service: {name}")
            return 0
        return terminal.say(dump(rest))

    def input(self, arguments: list[str], terminal: Terminal) -> int:
        if arguments[:1] != ["keyevent"]:
            return terminal.fail(f"Error: Unknown command: {' '.join(arguments[:1])}")
        if arguments[1] in ("KEYCODE_WAKEUP", "WAKEUP", "224"):
            self._state.screen_on = True
        elif arguments[1] in ("KEYCODE_SLEEP", "SLEEP", "223"):
            self._state.go_dark()
        return 0

    def logcat(self, arguments: list[str], terminal: Terminal) -> int:
        """The agent's log, the only app's that there is; `-d` alone, for nothing is followed."""
        if "-d" not in arguments and "-t" not in arguments:
            return terminal.fail("logcat: only -d and -t are played here")
        terminal.say("--------- beginning of main")
        for line in self._app.log.splitlines():
            terminal.say(f"11-21 16:00:00.000  4242  4242 I blocktime: {line}")
        return 0

    def _deviceidle(self, arguments: list[str], terminal: Terminal) -> int:
        if arguments[:1] != ["whitelist"]:
            return terminal.fail(f"Unknown command: {' '.join(arguments[:1])}", 255)
        for change in arguments[1:]:
            name = change[1:]
            if name not in self._state.packages:
                terminal.say(f"Unknown package: {name}")
            elif change[0] == "+":
                self._state.idle_whitelist.add(name)
                terminal.say(f"Added: {name}")
            else:
                self._state.idle_whitelist.discard(name)
                terminal.say(f"Removed: {name}")
        return 0

    def _set_power(self, arguments: list[str], terminal: Terminal) -> int:
        match arguments:
            case ["set-fixed-performance-mode-enabled", enabled]:
                self._state.performance_switches.append(enabled == "true")
                return 0
            case _:
                return terminal.fail(f"Unknown command: {' '.join(arguments[:1])}", 255)

    def _power(self, arguments: list[str]) -> str:
        awake = self._state.screen_on
        return "\n".join(
            [
                "POWER MANAGER (dumpsys power)",
                "",
                "Power Manager State:",
                f"  mWakefulness={'Awake' if awake else 'Asleep'}",
                "",
                f"Display Power: state={'ON' if awake else 'OFF'}",
            ]
        )

    def _package(self, arguments: list[str]) -> str:
        installed = self._state.packages.get(arguments[0] if arguments else "")
        if installed is None:
            return f"Unable to find package: {arguments[0] if arguments else ''}"
        apk = installed.apk
        flags = "[ DEBUGGABLE HAS_CODE ALLOW_CLEAR_USER_DATA ]" if apk.debuggable else "[ HAS_CODE ]"
        permissions = [
            f"      {name}: granted=true, flags=[ USER_SET ]" for name in sorted(installed.granted)
        ]
        return "\n".join(
            [
                "Packages:",
                f"  Package [{apk.package}] (8f6d2c1):",
                "    userId=10234",
                f"    codePath={installed.path.parent}",
                f"    versionCode={apk.version_code} minSdk=26 targetSdk=35",
                f"    versionName={apk.version_name}",
                f"    flags={flags}",
                "    User 0: ceDataInode=1 installed=true hidden=false stopped=false enabled=0",
                "      runtime permissions:",
                *permissions,
            ]
        )
