"""A DeviceFarmer STF that answers as its doc/API.md and lib/units/api/controllers/user.js have it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "a-token-of-the-fake-farm"


class FakeStf:
    """A context manager with `url`. `addresses` by serial; `requests` are all that was asked, in order."""

    def __init__(self, models: dict[str, str], addresses: dict[str, str]):
        self.addresses, self.requests = addresses, []
        self.devices = {
            serial: {
                "serial": serial,
                "model": model,
                "present": True,
                "ready": True,
                "using": False,
                "owner": None,
            }
            for serial, model in models.items()
        }
        self.mute: set[str] = set()
        farm = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, reply = farm.answer(self.command, self.path, dict(self.headers), body)
                content = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeStf:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def leased(self) -> set[str]:
        """Serials that the token's user has."""
        return {serial for serial, device in self.devices.items() if device["using"]}

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        self.requests.append((method, urlsplit(path).path, json.loads(body) if body else None))
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"success": False, "description": "Requires Authentication"}
        parts = [unquote(part) for part in urlsplit(path).path.removeprefix("/api/v1/").split("/")]
        match (method, *parts):
            case "GET", "devices":
                return 200, {"success": True, "devices": list(self.devices.values())}
            case "POST", "user", "devices":
                device = self.devices.get(json.loads(body)["serial"])
                if device is None or not (device["present"] and device["ready"]) or device["owner"]:
                    return 403, {"success": False, "description": "Device is being used or not available"}
                device["using"], device["owner"] = True, {"email": "me@example.org"}
                return 200, {"success": True, "description": "Device successfully added"}
            case "DELETE", "user", "devices", serial:
                if serial not in self.leased:
                    return 403, {
                        "success": False,
                        "description": "You cannot release this device. Not owned by you",
                    }
                self.devices[serial].update(using=False, owner=None)
                return 200, {"success": True, "description": "Device successfully removed"}
            case "POST", "user", "devices", serial, "remoteConnect":
                if serial in self.mute:
                    return 504, {"success": False, "description": "Device is not responding"}
                if serial not in self.leased:
                    return 403, {
                        "success": False,
                        "description": "Device is not owned by you or is not available",
                    }
                return 200, {"success": True, "remoteConnectUrl": self.addresses[serial]}
            case "DELETE", "user", "devices", _, "remoteConnect":
                return 200, {"success": True, "description": "Device remote disconnected successfully"}
        return 404, {"success": False, "description": "Not found"}
