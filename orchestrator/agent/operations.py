"""What an agent does for each op of protocol/PROTOCOL.md."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.agent.agent import Agent
from orchestrator.agent.greeting import refusal_of
from orchestrator.agent.loaded_models import LoadedModels
from orchestrator.agent.pace import Pace
from orchestrator.agent.pulse import Pulse, beating
from orchestrator.agent.ramp import Ramp
from orchestrator.agent.runtime.model import Model, Traceable
from orchestrator.agent.timing import time_schedule
from orchestrator.wire import replies, requests, tensors
from orchestrator.wire.errors import OpError
from orchestrator.wire.fields import MAX_OPERATIONS, MAX_VISITS, PROTOCOL_VERSION
from orchestrator.wire.frames import Payload

Answer = tuple[replies.Reply, bytes]
"""A reply and its payload. Fields that are not set explicitly are left out."""


class Operations:
    """Answers the requests of one connection.

    `client_is_there` is asked between the rounds of a `run`, `send` takes the signs of life that it gives.
    """

    def __init__(
        self, agent: Agent, client_is_there: Callable[[], bool], send: Callable[[replies.Reply], None]
    ) -> None:
        self.models = LoadedModels()
        self._agent = agent
        self._client_is_there, self._send = client_is_there, send
        self._handlers: dict[type[requests.Request], Callable[[Any, Payload], Answer]] = {
            requests.HelloRequest: self._hello,
            requests.HaveRequest: self._have,
            requests.PutRequest: self._put,
            requests.LoadRequest: self._load,
            requests.PlacementRequest: self._placement,
            requests.UnloadRequest: self._unload,
            requests.CheckRequest: self._check,
            requests.RunRequest: self._run,
            requests.StateRequest: self._state,
            requests.ByeRequest: self._bye,
        }

    def answer(self, request: requests.Request, payload: Payload) -> Answer:
        """Do what is asked; OpError where that fails."""
        return self._handlers[type(request)](request, payload)

    def _hello(self, request: requests.HelloRequest, _: Payload) -> Answer:
        agent = self._agent
        refusal = refusal_of(request, agent.token)
        if refusal is not None:
            raise refusal
        runtimes = {name: runtime.describe() for name, runtime in agent.runtimes.items()}
        return replies.HelloReply(
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

    def _have(self, request: requests.HaveRequest, _: Payload) -> Answer:
        return replies.HaveReply(id=request.id, present=self._agent.store.has(request.sha256)), b""

    def _put(self, request: requests.PutRequest, payload: Payload) -> Answer:
        self._agent.store.put(request.sha256, payload.size_bytes, payload.chunks(), self.models.files())
        return replies.PutReply(id=request.id, bytes=payload.size_bytes), b""

    def _load(self, request: requests.LoadRequest, _: Payload) -> Answer:
        runtime = self._agent.runtimes.get(request.runtime)
        if runtime is None:
            known = ", ".join(self._agent.runtimes) or "none"
            raise OpError("unknown_runtime", f"no runtime {request.runtime!r}; this agent has: {known}")
        self.models.require_room()
        path = self._agent.store.path(request.sha256)
        with self._beating(request):
            start_ns = self._agent.clock()
            model = runtime.load(path, request.options)
            load_ns = self._agent.clock() - start_ns
        delegates = model.delegates
        return replies.LoadReply(
            id=request.id,
            handle=self.models.add(request.sha256, model),
            load_ns=load_ns,
            options=dict(model.options),
            inputs=list(model.inputs),
            outputs=list(model.outputs),
            delegates=None if delegates is None else list(delegates),
            placement=model.placement if request.placement else None,
        ), b""

    def _placement(self, request: requests.PlacementRequest, _: Payload) -> Answer:
        with self._beating(request):
            placement = self.models[request.handle].placement
        return replies.PlacementReply(id=request.id, placement=placement), b""

    def _beating(
        self, request: requests.LoadRequest | requests.PlacementRequest
    ) -> contextlib.AbstractContextManager[None]:
        return beating(
            lambda: self._send(replies.RunningReply(id=request.id, running=0)), request.heartbeat_s
        )

    def _unload(self, request: requests.UnloadRequest, _: Payload) -> Answer:
        self.models.unload(request.handle)
        return replies.UnloadReply(id=request.id), b""

    def _check(self, request: requests.CheckRequest, payload: Payload) -> Answer:
        model = self.models[request.handle]
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
        specs = [tensors.spec_of(output) for output in outputs]
        return replies.CheckReply(id=request.id, outputs=specs), tensors.pack(outputs)

    def _run(self, request: requests.RunRequest, _: Payload) -> Answer:
        rounds, visits = _checked_schedule(request)
        models = [self.models[handle] for handle in request.handles]
        before = self._agent.state()
        every_s = request.heartbeat_s or math.inf
        pulse = Pulse(
            self._client_is_there,
            lambda executions: self._send(replies.RunningReply(id=request.id, running=executions)),
            every_s,
        )
        ramp = Ramp(1_000_000 * request.warmup_ms) if request.warmup_ms else None
        clock, sleep = self._agent.clock, self._agent.sleep
        pace = Pace(1_000 * request.pace_us, clock, sleep) if request.pace_us else None
        spin = self._agent.spin if request.keep_warm else None
        samples = time_schedule(
            models, request.order, request.warmup, pulse, clock, every_s, ramp, pace, spin
        )
        after = self._agent.state()
        told = {"keep_warm": request.keep_warm} if "keep_warm" in request.model_fields_set else {}
        return replies.RunReply(
            id=request.id,
            rounds=rounds,
            visits=visits,
            state_before=before.model_copy(update=told),
            state_after=after.model_copy(update=told),
            payload=samples.nbytes,
            **_warmed(ramp),
            **_traced(models, request.warmup + (ramp.rounds if ramp else 0)),
        ), samples.tobytes()

    def _state(self, request: requests.StateRequest, _: Payload) -> Answer:
        return replies.StateReply(id=request.id, state=self._agent.state()), b""

    def _bye(self, request: requests.ByeRequest, _: Payload) -> Answer:
        return replies.ByeReply(id=request.id), b""


def _checked_schedule(request: requests.RunRequest) -> tuple[int, int]:
    """Rounds and visits of each; OpError where the schedule is not one."""
    rounds, visits = len(request.order), len(request.order[0])
    if any(len(visited) != visits for visited in request.order):
        raise OpError("bad_request", "run: order: every round must have the same number of visits")
    if rounds * visits > MAX_VISITS:
        raise OpError("bad_request", f"run: order: {rounds * visits} visits are over {MAX_VISITS}")
    if max(map(max, request.order)) >= len(request.handles):
        raise OpError("bad_request", "run: order: an index is beyond the handles")
    return rounds, visits


def _warmed(ramp: Ramp | None) -> dict[str, Any]:
    """The reply's field `warmed`, left out where the run was not asked to warm up by time."""
    return {"warmed": replies.Warmed(ns=ramp.ns, rounds=ramp.rounds, steady=ramp.steady)} if ramp else {}


def _traced(models: Sequence[Model], warmup: int) -> dict[str, Any]:
    """The reply's field `operations`, left out where no model was traced or where a header could not hold it."""
    traced = [model.take_operations(warmup) if isinstance(model, Traceable) else [] for model in models]
    return {"operations": traced} if 0 < sum(map(len, traced)) <= MAX_OPERATIONS else {}
