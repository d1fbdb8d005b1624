"""A Hugging Face hub in memory: what its client needs to list, read and commit files of a data set.

It follows what huggingface_hub 2.4.0 sends and expects.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flask import Flask, Response, request
from werkzeug.serving import make_server


@dataclass
class FakeHub:
    """`files` of the data set `user/luts`; `commits` counts them; `refuses` tokens other than this."""

    token: str
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    url: str = ""

    def app(self) -> Flask:  # noqa: C901 - one short function for each route
        app = Flask("fake hub")
        base = "/api/datasets/user/luts"

        @app.before_request
        def authorize() -> Response | None:
            if "/user/luts" not in request.path:
                return _missing("RepoNotFound")
            if request.method == "POST" and request.headers.get("Authorization") != f"Bearer {self.token}":
                return Response("Invalid credentials", 401)
            return None

        @app.get(base)
        @app.get(f"{base}/revision/main")
        def info() -> dict[str, object]:
            return {
                "id": "user/luts",
                "sha": f"{self.commits:040x}",
                "private": False,
                "tags": [],
                "downloads": 0,
            }

        @app.get(f"{base}/tree/main")
        @app.get(f"{base}/tree/main/<path:folder>")
        def tree(folder: str = "") -> Response:
            prefix = f"{folder}/" if folder else ""
            below = sorted(path for path in self.files if path.startswith(prefix))
            if folder and not below:
                return _missing("EntryNotFound")
            found: dict[str, dict[str, object]] = {}
            for path in below:
                parts = path.removeprefix(prefix).split("/")
                for count in (
                    range(1, len(parts))
                    if request.args.get("recursive") == "true"
                    else range(1, min(2, len(parts)))
                ):
                    name = prefix + "/".join(parts[:count])
                    found[name] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
                if len(parts) == 1 or request.args.get("recursive") == "true":
                    oid = hashlib.sha1(self.files[path]).hexdigest()
                    found[path] = {"type": "file", "oid": oid, "size": len(self.files[path]), "path": path}
            return Response(json.dumps(list(found.values())), mimetype="application/json")

        @app.post(f"{base}/preupload/main")
        def preupload() -> dict[str, object]:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in request.get_json()["files"]
            ]
            return {"files": files}

        @app.post(f"{base}/commit/main")
        def commit() -> dict[str, object]:
            for line in request.get_data().decode().splitlines():
                operation = json.loads(line)
                if operation["key"] == "file":
                    assert operation["value"]["encoding"] == "base64"
                    self.files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
            self.commits += 1
            oid = f"{self.commits:040x}"
            return {
                "success": True,
                "commitOid": oid,
                "commitUrl": f"{self.url}/datasets/user/luts/commit/{oid}",
            }

        @app.get("/datasets/user/luts/resolve/main/<path:path>")
        def resolve(path: str) -> Response:
            if path not in self.files:
                return _missing("EntryNotFound")
            response = Response(self.files[path], mimetype="application/octet-stream")
            response.headers["X-Repo-Commit"] = f"{self.commits:040x}"
            response.headers["ETag"] = f'"{hashlib.sha1(self.files[path]).hexdigest()}"'
            response.make_conditional(
                request.environ, accept_ranges=True, complete_length=len(self.files[path])
            )
            return response

        return app


def _missing(code: str) -> Response:
    return Response("{}", 404, headers={"X-Error-Code": code})


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub at a free port of this machine, `hub.url`."""
    server = make_server("127.0.0.1", 0, hub.app(), threaded=True)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
