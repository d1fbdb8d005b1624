"""Which of several models a device can't run: refused at load, or deadly to the agent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.measure.link import Link, ModelFile
from orchestrator.wire.errors import AgentError, AgentLost

_TRIES = 2
_RUNS = 3
_REFUSALS = ("bad_model", "out_of_memory", "run_failed")


def refusal(error: AgentError) -> str:
    """Why the runtime can't take a model; the error itself is raised where the model is not at fault."""
    if error.code not in _REFUSALS:
        raise error
    return f"{error.code}: {error}"


def culprits(link: Link, files: Mapping[str, ModelFile], models: Iterable[str]) -> dict[str, str]:
    """Models that fail alone, with the reason: each is loaded and run by itself, twice if the agent dies of it.

    Raises:
        AgentLost: the device went away and stayed away.
    """
    found = {}
    for model in dict.fromkeys(models):
        if reason := _fails(link, files[model]):
            found[model] = reason
    return found


def _fails(link: Link, file: ModelFile) -> str:
    starts = link.device.agent_starts
    for _ in range(_TRIES):
        link.hello()
        try:
            loaded = link.load(file)
            link.client.run([loaded.handle], [[0]] * _RUNS)
            link.client.unload(loaded.handle)
        except AgentError as error:
            return refusal(error)
        except AgentLost:
            link.drop()
            link.hello()
            continue
        return ""
    died = link.device.agent_starts - starts
    return f"the agent died {died} times out of {_TRIES} that it ran alone" if died == _TRIES else ""
