"""Which of several models a device can't run: refused at load, or deadly to the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from luts.format.errors import InvalidArtifactError
from orchestrator.measure.link import Link
from orchestrator.wire.errors import AgentError, AgentLost
from orchestrator.wire.model_file import ModelFile

_TRIES = 2
_RUNS = 3
_DEATHS_BEFORE_SEARCH = 2
_REFUSALS = ("bad_model", "out_of_memory", "run_failed")


class ReferenceFailedError(InvalidArtifactError):
    """The device can't run the reference, to which all is measured; `reason` says why."""

    def __init__(self, device: str, reason: str):
        super().__init__(
            f"the reference model can't be measured on {device}: {reason}; "
            "choose another runtime, backend or precision"
        )
        self.reason = reason


def refusal(error: AgentError) -> str:
    """Why the runtime can't take a model; the error itself is raised where the model is not at fault."""
    if error.code not in _REFUSALS:
        raise error
    return f"{error.code}: {error}"


class DeadlyModels:
    """Finds which models take the agent down, from one batch's deaths."""

    def __init__(self, link: Link, files: Mapping[str, ModelFile], tell: Callable[[str], None]):
        self._link, self._files, self._tell = link, files, tell
        self._deaths = 0

    def after_death(self, models: Sequence[str], in_hand: str) -> dict[str, str]:
        """Models to leave out now, with the reason; none where it is to be tried again.

        The model that was being loaded is suspected first, each by itself at the second death that explains
        nothing, and at the third all of the batch but its reference: they do it beside each other.

        Args:
            models: Of the batch, the reference first.
            in_hand: The one that was being loaded; empty where none was.

        Raises:
            AgentLost: the device went away and stayed away.
        """
        self._deaths += 1
        if in_hand:
            self._tell(f"the agent died or hung while loading {in_hand}: trying that alone")
        found = self._alone([in_hand] if in_hand else [])
        if not found and self._deaths == _DEATHS_BEFORE_SEARCH:
            self._tell("the agent died or hung twice: looking for the model that does it")
            found = self._alone(model for model in dict.fromkeys(models) if model != in_hand)
        if not found and self._deaths > _DEATHS_BEFORE_SEARCH:
            company = list(dict.fromkeys(models))
            names = ", ".join(company)
            reason = (
                f"the agent died or hung {self._deaths} times beside {names}, though with none of them alone"
            )
            found = dict.fromkeys(company[1:], reason)
        if found:
            self._deaths = 0
        return found

    def _alone(self, models: Iterable[str]) -> dict[str, str]:
        reasons = {model: _fails(self._link, self._files[model]) for model in models}
        return {model: reason for model, reason in reasons.items() if reason}


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
    return f"the agent died or hung {died} times out of {_TRIES} that it ran alone" if died == _TRIES else ""
