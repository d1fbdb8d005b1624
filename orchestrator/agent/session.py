"""One client's connection: reads requests, checks them, answers them, and frees all it loaded at the end."""

from __future__ import annotations

import hmac
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.agent.errors import OpError
from orchestrator.agent.runtime import Model, Runtime, Traceable
from orchestrator.agent.state import read_state
from orchestrator.agent.store import ModelStore
from orchestrator.agent.timing import time_schedule
from orchestrator.wire import messages as m
from orchestrator.wire import tensors
from orchestrator.wire.errors import FrameError
from orchestrator.wire.frames import Payload, encode_header, read_frame
from orchestrator.wire.sockets import SocketSource, close_after_answer

# A peer must say hello within this, so that a stray connection does not hold the only place.
HELLO_TIMEOUT_S = 10.0

# Once a frame has begun, its bytes must keep coming; between frames a client may be silent for hours.
FRAME_TIMEOUT_S = 30.0

_MAX_MESSAGE = 1000


@dataclass(frozen=True)
class Agent:
    """What every connection shares; `clock` (monotonic ns) and `state` are the machine's own or made up."""

    token: str
    store: ModelStore
    runtimes: Mapping[str, Runtime]
    info: m.AgentInfo
    device: m.DeviceInfo
    clock: Callable[[], int] = time.perf_counter_ns
    state: Callable[[], m.DeviceState] = read_state


class Session:
    """Serves one connected client; `serve` returns when the connection is over and everything is freed."""

    def __init__(self, agent: Agent, sock: socket.socket) -> None:
        self._agent = agent
        self._sock = sock
        self._source = SocketSource(sock)
        self._greeted = False
        self._leaving = False
        self._models: dict[int, tuple[str, Model]] = {}
        self._next_handle = 1
        self._handlers: dict[type[BaseModel], Callable[[Any, Payload], tuple[dict[str, Any], bytes]]] = {
            m.HelloRequest: self._hello,
            m.HaveRequest: self._have,
            m.PutRequest: self._put,
            m.LoadRequest: self._load,
            m.UnloadRequest: self._unload,
            m.CheckRequest: self._check,
            m.RunRequest: self._run,
            m.StateRequest: self._state,
            m.ByeRequest: self._bye,
        }

    def serve(self) -> None:
        """Answers requests until the client leaves, vanishes or breaks the protocol."""
        try:
            while not self._leaving:
                if not self._wait_for_frame():
                    raise FrameError("timeout", f"no hello within {HELLO_TIMEOUT_S:.0f} s")
                self._sock.settimeout(FRAME_TIMEOUT_S)
                frame = read_frame(self._source)
                if frame is None:
                    break
                self._answer(*frame)
        except FrameError as error:
            self._reply_last(None, error.code, str(error))
        except TimeoutError:
            self._reply_last(None, "timeout", f"a frame stood still for {FRAME_TIMEOUT_S:.0f} s")
        except OSError:
            pass
        finally:
            for _, model in self._models.values():
                model.close()
            self._models.clear()
            close_after_answer(self._sock)

    def _wait_for_frame(self) -> bool:
        timeout_s = None if self._greeted else HELLO_TIMEOUT_S
        return bool(select.select([self._sock], [], [], timeout_s)[0])

    def _answer(self, header: dict[str, Any], payload: Payload) -> None:
        request_id = header.get("id")
        if type(request_id) is not int or not 0 <= request_id < 2**53:
            request_id = None
        try:
            request = self._parse(header)
            fields, body = self._handlers[type(request)](request, payload)
        except OpError as error:
            self._leaving = self._leaving or error.closes
            if error.closes:
                self._reply_last(request_id, error.code, str(error))
                return
            fields, body = _error(error.code, str(error)), b""
        except (FrameError, OSError):
            raise
        except MemoryError:
            fields, body = _error("out_of_memory", "no memory left for this request"), b""
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            fields, body = _error("internal", f"the agent failed: {type(error).__name__}: {error}"), b""
        payload.drain()
        self._sock.sendall(encode_header({"id": request_id, **fields}, len(body)) + body)

    def _parse(self, header: dict[str, Any]) -> BaseModel:
        op = header.get("op")
        request_type = m.REQUESTS.get(op) if isinstance(op, str) else None
        if not self._greeted and request_type is not m.HelloRequest:
            raise OpError("unauthorized", "say hello first", closes=True)
        if request_type is None:
            raise OpError("unknown_op", f"unknown op {str(op)[:64]!r}; known: {', '.join(m.REQUESTS)}")
        try:
            return request_type.model_validate(header)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise OpError("bad_request", f"{op}: {where}: {first['msg']}", closes=not self._greeted) from None

    def _reply_last(self, request_id: int | None, code: str, message: str) -> None:
        """The error that ends the connection; a client that is gone does not hear it."""
        try:
            self._sock.settimeout(FRAME_TIMEOUT_S)
            self._sock.sendall(encode_header({"id": request_id, **_error(code, message)}))
        except OSError:
            return

    def _hello(self, request: m.HelloRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        if not hmac.compare_digest(request.token.encode(errors="replace"), self._agent.token.encode()):
            raise OpError(
                "unauthorized", "wrong token; take the one that the agent was started with", closes=True
            )
        if request.protocol != m.PROTOCOL_VERSION:
            raise OpError(
                "protocol_version",
                f"this agent speaks protocol {m.PROTOCOL_VERSION}, not {request.protocol}; "
                "install the same version of blocktime on both sides",
                closes=True,
            )
        self._greeted = True
        return {
            "protocol": m.PROTOCOL_VERSION,
            "agent": self._agent.info.model_dump(),
            "device": self._agent.device.model_dump(),
            "runtimes": {
                name: runtime.describe().model_dump() for name, runtime in self._agent.runtimes.items()
            },
        }, b""

    def _have(self, request: m.HaveRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        return {"present": self._agent.store.has(request.sha256)}, b""

    def _put(self, request: m.PutRequest, payload: Payload) -> tuple[dict[str, Any], bytes]:
        in_use = {sha256 for sha256, _ in self._models.values()}
        self._agent.store.put(request.sha256, payload.size_bytes, payload.chunks(), in_use)
        return {"bytes": payload.size_bytes}, b""

    def _load(self, request: m.LoadRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        runtime = self._agent.runtimes.get(request.runtime)
        if runtime is None:
            known = ", ".join(self._agent.runtimes) or "none"
            raise OpError("unknown_runtime", f"no runtime {request.runtime!r}; this agent has: {known}")
        if len(self._models) >= m.MAX_HANDLES:
            raise OpError("too_many_handles", f"{m.MAX_HANDLES} models are loaded; unload some first")
        path = self._agent.store.path(request.sha256)
        start_ns = self._agent.clock()
        model = runtime.load(path, request.options)
        load_ns = self._agent.clock() - start_ns
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._models[handle] = (request.sha256, model)
        delegates, placement = model.delegates, model.placement
        return {
            "handle": handle,
            "load_ns": load_ns,
            "options": dict(model.options),
            "inputs": [spec.model_dump() for spec in model.inputs],
            "outputs": [spec.model_dump() for spec in model.outputs],
            "delegates": None if delegates is None else [delegate.model_dump() for delegate in delegates],
            "placement": None if placement is None else placement.model_dump(),
        }, b""

    def _unload(self, request: m.UnloadRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        self._model(request.handle).close()
        del self._models[request.handle]
        return {}, b""

    def _check(self, request: m.CheckRequest, payload: Payload) -> tuple[dict[str, Any], bytes]:
        model = self._model(request.handle)
        needed_bytes = sum(map(tensors.spec_bytes, request.inputs))
        if tuple(request.inputs) != model.inputs or needed_bytes != payload.size_bytes:
            wanted = ", ".join(f"{spec.dtype}{spec.shape}" for spec in model.inputs)
            raise OpError(
                "bad_input", f"the model takes {wanted}; the inputs or their bytes differ from that"
            )
        arrays = tensors.unpack(request.inputs, payload.read())
        set_inputs = model.prepare(arrays)
        try:
            set_inputs()
            model.execute()
            outputs = model.get_outputs()
        except RuntimeError as error:
            raise OpError("run_failed", f"the runtime failed: {error}") from None
        return {"outputs": [tensors.spec_of(output).model_dump() for output in outputs]}, tensors.pack(
            outputs
        )

    def _run(self, request: m.RunRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        rounds, visits = len(request.order), len(request.order[0])
        if any(len(visited) != visits for visited in request.order):
            raise OpError("bad_request", "run: order: every round must have the same number of visits")
        if rounds * visits > m.MAX_VISITS:
            raise OpError("bad_request", f"run: order: {rounds * visits} visits are over {m.MAX_VISITS}")
        if max(map(max, request.order)) >= len(request.handles):
            raise OpError("bad_request", "run: order: an index is beyond the handles")
        models = [self._model(handle) for handle in request.handles]
        before = self._agent.state()
        samples = time_schedule(
            models, request.order, request.warmup, self._client_is_there, self._agent.clock
        )
        after = self._agent.state()
        return {
            "rounds": rounds,
            "visits": visits,
            "state_before": before.model_dump(),
            "state_after": after.model_dump(),
            **_traced(models, request.warmup),
        }, samples.tobytes()

    def _state(self, _request: m.StateRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        return {"state": self._agent.state().model_dump()}, b""

    def _bye(self, _request: m.ByeRequest, _: Payload) -> tuple[dict[str, Any], bytes]:
        self._leaving = True
        return {}, b""

    def _model(self, handle: int) -> Model:
        if handle not in self._models:
            raise OpError("unknown_handle", f"no model is loaded as handle {handle}")
        return self._models[handle][1]

    def _client_is_there(self) -> bool:
        if not select.select([self._sock], [], [], 0)[0]:
            return True
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": " ".join(message.split())[:_MAX_MESSAGE]}}


def _traced(models: list[Model], warmup: int) -> dict[str, Any]:
    """The reply's field `operations`, left out where no model was traced or where a header could not hold it."""
    traced = [model.take_operations(warmup) if isinstance(model, Traceable) else [] for model in models]
    if not 0 < sum(map(len, traced)) <= m.MAX_OPERATIONS:
        return {}
    return {"operations": [[operation.model_dump() for operation in operations] for operations in traced]}
