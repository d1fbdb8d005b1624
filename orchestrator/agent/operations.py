"""What an agent does for each operation of protocol/PROTOCOL.md."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.agent.agent import Agent, refusal_of
from orchestrator.agent.runtime import Model, Traceable
from orchestrator.agent.timing import (
    AdaptiveWarmup,
    Heartbeat,
    Pace,
    TimingOptions,
    heartbeats_during,
    time_schedule,
)
from orchestrator.wire import messages
from orchestrator.wire.errors import OpError
from orchestrator.wire.frames import Payload
from orchestrator.wire.messages import MAX_HANDLES, MAX_OPERATIONS, MAX_VISITS, PROTOCOL_VERSION


class LoadedModels:
    """Loaded models by handle; handles count up from 1 and are never reused."""

    def __init__(self) -> None:
        """Start without models."""
        self._models: dict[int, tuple[str, Model]] = {}
        self._next_handle = 1

    def require_room(self) -> None:
        """Raise OpError `too_many_handles` if no further model may be loaded."""
        if len(self._models) >= MAX_HANDLES:
            raise OpError("too_many_handles", f"{MAX_HANDLES} models are loaded; unload some first")

    def add(self, sha256: str, model: Model) -> int:
        """Return the handle of a model that was just loaded from the file with this digest."""
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._models[handle] = sha256, model
        return handle

    def __getitem__(self, handle: int) -> Model:
        """Return the model of a handle; raises OpError `unknown_handle`."""
        if handle not in self._models:
            raise OpError("unknown_handle", f"no model is loaded as handle {handle}")
        return self._models[handle][1]

    def unload(self, handle: int) -> None:
        """Free a model."""
        self[handle].close()
        del self._models[handle]

    def unload_all(self) -> None:
        """Free all models."""
        for _, model in self._models.values():
            model.close()
        self._models.clear()

    def files(self) -> set[str]:
        """Return the digests of the files of loaded models."""
        return {sha256 for sha256, _ in self._models.values()}


Answer = tuple[messages.Reply, bytes]
"""A reply and its payload. Fields that are not set explicitly are left out."""


class Operations:
    """Answers the requests of one connection."""

    def __init__(
        self, agent: Agent, client_is_there: Callable[[], bool], send: Callable[[messages.Reply], None]
    ) -> None:
        """Serve one connection.

        Args:
            agent: The agent's shared state.
            client_is_there: Whether the client is still connected; called between the rounds of a run.
            send: Sends a heartbeat.
        """
        self.models = LoadedModels()
        self._agent = agent
        self._client_is_there, self._send = client_is_there, send
        self._handlers: dict[type[messages.Request], Callable[[Any, Payload], Answer]] = {
            messages.HelloRequest: self._hello,
            messages.HaveRequest: self._have,
            messages.PutRequest: self._put,
            messages.LoadRequest: self._load,
            messages.PlacementRequest: self._placement,
            messages.UnloadRequest: self._unload,
            messages.CheckRequest: self._check,
            messages.RunRequest: self._run,
            messages.StateRequest: self._state,
            messages.ByeRequest: self._bye,
        }

    def answer(self, request: messages.Request, payload: Payload) -> Answer:
        """Return the answer to a request; raises OpError."""
        return self._handlers[type(request)](request, payload)

    def _hello(self, request: messages.HelloRequest, _: Payload) -> Answer:
        agent = self._agent
        refusal = refusal_of(request, agent.token)
        if refusal is not None:
            raise refusal
        runtimes = {name: runtime.describe() for name, runtime in agent.runtimes.items()}
        return messages.HelloReply(
            id=request.id,
            protocol=PROTOCOL_VERSION,
            agent=agent.info,
            device=agent.device,
            runtimes=runtimes,
            heartbeat=True,
            timed_warmup=True,
            heartbeat_ops=["load", "placement"],
            pace=True,
            keep_warm=agent.spin is not None,
        ), b""

    def _have(self, request: messages.HaveRequest, _: Payload) -> Answer:
        return messages.HaveReply(id=request.id, present=self._agent.store.has(request.sha256)), b""

    def _put(self, request: messages.PutRequest, payload: Payload) -> Answer:
        self._agent.store.put(request.sha256, payload.size_bytes, payload.chunks(), self.models.files())
        return messages.PutReply(id=request.id, bytes=payload.size_bytes), b""

    def _load(self, request: messages.LoadRequest, _: Payload) -> Answer:
        runtime = self._agent.runtimes.get(request.runtime)
        if runtime is None:
            known = ", ".join(self._agent.runtimes) or "none"
            raise OpError("unknown_runtime", f"no runtime {request.runtime!r}; this agent has: {known}")
        self.models.require_room()
        path = self._agent.store.path(request.sha256)
        with self._heartbeats(request):
            start_ns = self._agent.clock()
            model = runtime.load(path, request.options)
            load_ns = self._agent.clock() - start_ns
        delegates = model.delegates
        return messages.LoadReply(
            id=request.id,
            handle=self.models.add(request.sha256, model),
            load_ns=load_ns,
            options=dict(model.options),
            inputs=list(model.inputs),
            outputs=list(model.outputs),
            delegates=None if delegates is None else list(delegates),
            placement=model.placement if request.placement else None,
        ), b""

    def _placement(self, request: messages.PlacementRequest, _: Payload) -> Answer:
        with self._heartbeats(request):
            placement = self.models[request.handle].placement
        return messages.PlacementReply(id=request.id, placement=placement), b""

    def _heartbeats(
        self, request: messages.LoadRequest | messages.PlacementRequest
    ) -> contextlib.AbstractContextManager[None]:
        return heartbeats_during(
            lambda: self._send(messages.RunningReply(id=request.id, running=0)), request.heartbeat_s
        )

    def _unload(self, request: messages.UnloadRequest, _: Payload) -> Answer:
        self.models.unload(request.handle)
        return messages.UnloadReply(id=request.id), b""

    def _check(self, request: messages.CheckRequest, payload: Payload) -> Answer:
        model = self.models[request.handle]
        needed_bytes = sum(map(messages.spec_bytes, request.inputs))
        if tuple(request.inputs) != model.inputs or needed_bytes != payload.size_bytes:
            wanted = ", ".join(f"{spec.dtype}{spec.shape}" for spec in model.inputs)
            raise OpError(
                "bad_input", f"the model takes {wanted}; the inputs or their bytes differ from that"
            )
        arrays = messages.unpack(request.inputs, payload.read())
        set_inputs = model.prepare(arrays)
        try:
            set_inputs()
            model.execute()
            outputs = model.get_outputs()
        except RuntimeError as error:
            raise OpError("run_failed", f"the runtime failed: {error}") from None
        specs = [messages.spec_of(output) for output in outputs]
        return messages.CheckReply(id=request.id, outputs=specs), messages.pack(outputs)

    def _run(self, request: messages.RunRequest, _: Payload) -> Answer:
        rounds, calls = _checked_schedule(request)
        models = [self.models[handle] for handle in request.handles]
        before = self._agent.state()
        every_s = request.heartbeat_s or math.inf
        heartbeat = Heartbeat(
            self._client_is_there,
            lambda executions: self._send(messages.RunningReply(id=request.id, running=executions)),
            every_s,
        )
        adaptive = AdaptiveWarmup(1_000_000 * request.warmup_ms) if request.warmup_ms else None
        clock, sleep = self._agent.clock, self._agent.sleep
        pace = Pace(1_000 * request.pace_us, clock, sleep) if request.pace_us else None
        spin = self._agent.spin if request.keep_warm else None
        options = TimingOptions(every_s, adaptive, pace, spin)
        samples = time_schedule(models, request.order, request.warmup, heartbeat, clock, options)
        after = self._agent.state()
        extra = {"keep_warm": request.keep_warm} if "keep_warm" in request.model_fields_set else {}
        return messages.RunReply(
            id=request.id,
            rounds=rounds,
            visits=calls,
            state_before=before.model_copy(update=extra),
            state_after=after.model_copy(update=extra),
            payload=samples.nbytes,
            **_warmed(adaptive),
            **_traced(models, request.warmup + (adaptive.rounds if adaptive else 0)),
        ), samples.tobytes()

    def _state(self, request: messages.StateRequest, _: Payload) -> Answer:
        return messages.StateReply(id=request.id, state=self._agent.state()), b""

    def _bye(self, request: messages.ByeRequest, _: Payload) -> Answer:
        return messages.ByeReply(id=request.id), b""


def _checked_schedule(request: messages.RunRequest) -> tuple[int, int]:
    """Return the number of rounds and of calls of each; raises OpError if the schedule is invalid."""
    rounds, calls = len(request.order), len(request.order[0])
    if any(len(row) != calls for row in request.order):
        raise OpError("bad_request", "run: order: every round must have the same number of calls")
    if rounds * calls > MAX_VISITS:
        raise OpError("bad_request", f"run: order: {rounds * calls} calls are over {MAX_VISITS}")
    if max(map(max, request.order)) >= len(request.handles):
        raise OpError("bad_request", "run: order: an index is beyond the handles")
    return rounds, calls


def _warmed(adaptive: AdaptiveWarmup | None) -> dict[str, Any]:
    """Return the reply's field `warmed`, if the run was warmed up by time."""
    if adaptive is None:
        return {}
    warmed = messages.Warmed(ns=adaptive.ns, rounds=adaptive.rounds, steady=adaptive.steady)
    return {"warmed": warmed}


def _traced(models: Sequence[Model], warmup: int) -> dict[str, Any]:
    """Return the reply's field `operations`, if a model was traced and a header can hold it."""
    traced = [model.take_operations(warmup) if isinstance(model, Traceable) else [] for model in models]
    return {"operations": traced} if 0 < sum(map(len, traced)) <= MAX_OPERATIONS else {}
