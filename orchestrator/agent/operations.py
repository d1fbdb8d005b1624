"""What an agent does for each operation of protocol/PROTOCOL.md."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.agent.agent import Agent, refusal_of
from orchestrator.agent.runtime import Model
from orchestrator.agent.timing import (
    AdaptiveWarmup,
    Heartbeat,
    Pace,
    TimingOptions,
    heartbeats_during,
    time_schedule,
)
from orchestrator.wire import messages
from orchestrator.wire.errors import AgentError
from orchestrator.wire.frames import Payload
from orchestrator.wire.messages import MAX_HANDLES, MAX_OPERATIONS, MAX_VISITS, PROTOCOL_VERSION

Answer = tuple[messages.Reply, bytes]
"""A reply and its payload. Fields that are not set explicitly are left out."""


class Operations:
    """Answers the requests of one connection; `_OP` answers `OP`.

    Loaded models have handles, which count up from 1 and are never reused.
    """

    def __init__(
        self, agent: Agent, client_is_there: Callable[[], bool], send: Callable[[messages.Reply], None]
    ) -> None:
        """Serve one connection: `client_is_there` is called between rounds, `send` sends heartbeats."""
        self._agent = agent
        self._client_is_there, self._send = client_is_there, send
        self._models: dict[int, tuple[str, Model]] = {}
        self._handles = itertools.count(1)

    def answer(self, request: messages.Request, payload: Payload) -> Answer:
        """Return the answer to a request; raises AgentError."""
        answer: Answer = getattr(self, f"_{request.op}")(request, payload)
        return answer

    def unload_all(self) -> None:
        """Free all models."""
        for _, model in self._models.values():
            model.close()
        self._models.clear()

    def _model(self, handle: int) -> Model:
        if handle not in self._models:
            raise AgentError("unknown_handle", f"no model is loaded as handle {handle}")
        return self._models[handle][1]

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
        in_use = {sha256 for sha256, _ in self._models.values()}
        self._agent.store.put(request.sha256, payload.size_bytes, payload.chunks(), in_use)
        return messages.PutReply(id=request.id, bytes=payload.size_bytes), b""

    def _load(self, request: messages.LoadRequest, _: Payload) -> Answer:
        runtime = self._agent.runtimes.get(request.runtime)
        if runtime is None:
            known = ", ".join(self._agent.runtimes) or "none"
            raise AgentError("unknown_runtime", f"no runtime {request.runtime!r}; this agent has: {known}")
        if len(self._models) >= MAX_HANDLES:
            raise AgentError("too_many_handles", f"{MAX_HANDLES} models are loaded; unload some first")
        path = self._agent.store.path(request.sha256)
        with self._heartbeats(request):
            start_ns = self._agent.clock()
            model = runtime.load(path, request.options)
            whole_ns = self._agent.clock() - start_ns
        delegates, handle = model.delegates, next(self._handles)
        self._models[handle] = request.sha256, model
        return messages.LoadReply(
            id=request.id,
            handle=handle,
            load_ns=whole_ns if model.load_ns is None else model.load_ns,
            options=dict(model.options),
            inputs=list(model.inputs),
            outputs=list(model.outputs),
            delegates=None if delegates is None else list(delegates),
            placement=model.placement if request.placement else None,
        ), b""

    def _placement(self, request: messages.PlacementRequest, _: Payload) -> Answer:
        with self._heartbeats(request):
            placement = self._model(request.handle).placement
        return messages.PlacementReply(id=request.id, placement=placement), b""

    def _heartbeats(
        self, request: messages.LoadRequest | messages.PlacementRequest
    ) -> contextlib.AbstractContextManager[None]:
        return heartbeats_during(
            lambda: self._send(messages.RunningReply(id=request.id, running=0)), request.heartbeat_s
        )

    def _unload(self, request: messages.UnloadRequest, _: Payload) -> Answer:
        self._model(request.handle).close()
        del self._models[request.handle]
        return messages.UnloadReply(id=request.id), b""

    def _check(self, request: messages.CheckRequest, payload: Payload) -> Answer:
        model = self._model(request.handle)
        needed_bytes = sum(map(messages.spec_bytes, request.inputs))
        if tuple(request.inputs) != model.inputs or needed_bytes != payload.size_bytes:
            wanted = ", ".join(f"{spec.dtype}{spec.shape}" for spec in model.inputs)
            raise AgentError(
                "bad_input", f"the model takes {wanted}; the inputs or their bytes differ from that"
            )
        arrays = messages.unpack(request.inputs, payload.read())
        set_inputs = model.prepare(arrays)
        try:
            set_inputs()
            model.execute()
            outputs = model.get_outputs()
        except RuntimeError as error:
            raise AgentError("run_failed", f"the runtime failed: {error}") from None
        specs = [messages.spec_of(output) for output in outputs]
        return messages.CheckReply(id=request.id, outputs=specs), messages.pack(outputs)

    def _run(self, request: messages.RunRequest, _: Payload) -> Answer:
        rounds, calls = _checked_schedule(request)
        models = [self._model(handle) for handle in request.handles]
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
            **_extra_fields(models, request.warmup, adaptive),
        ), samples.tobytes()

    def _state(self, request: messages.StateRequest, _: Payload) -> Answer:
        return messages.StateReply(id=request.id, state=self._agent.state()), b""

    def _bye(self, request: messages.ByeRequest, _: Payload) -> Answer:
        return messages.ByeReply(id=request.id), b""


def _checked_schedule(request: messages.RunRequest) -> tuple[int, int]:
    """Return the number of rounds and of calls of each; raises AgentError if the schedule is invalid."""
    rounds, calls = len(request.order), len(request.order[0])
    if any(len(row) != calls for row in request.order):
        raise AgentError("bad_request", "run: order: every round must have the same number of calls")
    if rounds * calls > MAX_VISITS:
        raise AgentError("bad_request", f"run: order: {rounds * calls} calls are over {MAX_VISITS}")
    if max(map(max, request.order)) >= len(request.handles):
        raise AgentError("bad_request", "run: order: an index is beyond the handles")
    return rounds, calls


def _extra_fields(models: Sequence[Model], warmup: int, adaptive: AdaptiveWarmup | None) -> dict[str, Any]:
    """Return `warmed` if the run was warmed up by time, `operations` if traced and a header can hold them."""
    fields: dict[str, Any] = {}
    if adaptive is not None:
        warmup += adaptive.rounds
        fields["warmed"] = messages.Warmed(ns=adaptive.ns, rounds=adaptive.rounds, steady=adaptive.steady)
    traced = [model.take_operations(warmup) for model in models]
    if 0 < sum(map(len, traced)) <= MAX_OPERATIONS:
        fields["operations"] = traced
    return fields
