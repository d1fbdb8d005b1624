"""A LUT is validated by the agent that calls its runtime, and a word is said where clocks were fixed."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

import pytest

from luts.format.lut import Lut
from luts.format.store import LutStore
from orchestrator.devices.common.device import Access
from orchestrator.tasks import validate as task
from orchestrator.tasks.progress import Note
from orchestrator.tasks.target import DeviceOptions

NAME = "linux-x86-64/autovit-nano/executorch-xnnpack-int8-t1"


class ResolvedError(Exception):
    """What `bench validate` asked for."""


def asked_for(
    monkeypatch: pytest.MonkeyPatch, device: dict[str, Any], **meta: Any
) -> tuple[Access, list[str]]:
    load, notes = LutStore.load, list[str]()

    def changed(self: LutStore, path: Any) -> Lut:
        lut = load(self, path)
        return replace(lut, meta=lut.meta.model_copy(update=meta))

    def resolve(_: str, how: Access) -> None:
        raise ResolvedError(how)

    monkeypatch.setattr(LutStore, "load", changed)
    monkeypatch.setattr(task, "resolve", resolve)
    monkeypatch.setattr(
        task, "proxy_for", lambda *_: None
    )  # the LUT is this machine's own, whichever that is
    with pytest.raises(ResolvedError) as caught:
        task.validate(
            task.ValidateCommand(lut=NAME, target=DeviceOptions("host", **device), count=2),
            lambda event: notes.append(str(event)) if isinstance(event, Note) else None,
        )
    return caught.value.args[0], notes


def test_a_macs_lut_is_validated_by_the_swift_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert asked_for(monkeypatch, {}, variant="coreml-fp16-all")[0].agent == "swift"


def test_others_are_by_the_agent_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(monkeypatch, {})[0].agent == "python"
    assert asked_for(monkeypatch, {"agent": "kotlin"})[0].agent == "kotlin"


@pytest.mark.parametrize(
    ("in_lut", "now", "expected"),
    [
        (True, False, "was measured in fixed performance mode"),
        (False, True, "leave --fixed-performance out"),
        (True, True, ""),
        (False, False, ""),
    ],
)
def test_fixed_clocks_are_mentioned_where_only_one_side_has_them(
    in_lut: bool, now: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = asked_for(monkeypatch, {"fixed_performance": now}, fixed_performance=in_lut)[1]
    assert ([expected in note for note in notes] == [True]) if expected else not notes
