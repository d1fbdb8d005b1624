"""The models that one connection has loaded, by handle."""

from __future__ import annotations

from orchestrator.agent.runtime.model import Model
from orchestrator.wire.errors import OpError
from orchestrator.wire.fields import MAX_HANDLES


class LoadedModels:
    """Handles count up from 1 and are never given twice."""

    def __init__(self) -> None:
        self._models: dict[int, tuple[str, Model]] = {}
        self._next_handle = 1

    def require_room(self) -> None:
        """OpError `too_many_handles` where no further model may be loaded."""
        if len(self._models) >= MAX_HANDLES:
            raise OpError("too_many_handles", f"{MAX_HANDLES} models are loaded; unload some first")

    def add(self, sha256: str, model: Model) -> int:
        """The handle of a model that was just loaded from the file with this digest."""
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._models[handle] = sha256, model
        return handle

    def __getitem__(self, handle: int) -> Model:
        """OpError `unknown_handle` where nothing is loaded as that."""
        if handle not in self._models:
            raise OpError("unknown_handle", f"no model is loaded as handle {handle}")
        return self._models[handle][1]

    def unload(self, handle: int) -> None:
        """Free a model."""
        self[handle].close()
        del self._models[handle]

    def unload_all(self) -> None:
        """Free what is left."""
        for _, model in self._models.values():
            model.close()
        self._models.clear()

    def files(self) -> set[str]:
        """Digests of the files that loaded models rest on."""
        return {sha256 for sha256, _ in self._models.values()}
