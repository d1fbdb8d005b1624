"""One seed of the soak's strangers and of its damaged requests for each agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import inputs, strangers
from tests.support.agent_programs import BUILT


@pytest.fixture(params=("python", *BUILT))
def language(request: pytest.FixtureRequest) -> str:
    if why := strangers.missing(request.param):
        pytest.skip(why)
    return str(request.param)


@pytest.mark.slow
def test_clients_are_served_among_strangers(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "PAIRS", 1)
    outcome = strangers.disturb(language, 0, tmp_path)
    assert outcome.clean, outcome.detail
    assert " times" in outcome.detail


@pytest.mark.slow
def test_a_client_whom_too_many_overtake_is_lost(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than may wait come between its connection and its hello: the bound of PROTOCOL.md."""
    monkeypatch.setattr(strangers, "PAIRS", 1)
    monkeypatch.setattr(strangers, "BETWEEN", 700)
    outcome = strangers.disturb(language, 0, tmp_path)
    assert outcome.lost == 1, outcome.detail


def test_damaged_requests_are_answered(language: str, tmp_path: Path) -> None:
    outcome = inputs.send_mutated(language, 320, 0, tmp_path)
    assert (outcome.tries, outcome.clean) == (320, True), outcome.detail
