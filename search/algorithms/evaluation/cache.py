"""Each architecture is evaluated once ever: what an objective said is kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from search.algorithms.evaluation.accuracy_file import AccuracyFile
from search.algorithms.interfaces.objective import Executor, checked_accuracy
from search.spaces import Arch

Watch = Callable[[Arch, float], None]
"""Called with an architecture and its accuracy as soon as it is known."""


class CachedEvaluator:
    """An `Evaluator` that remembers in a file, which other checkpoints, data and processes may share.

    What another process has written until a call is known to that call; where two evaluate the same at the
    same time, both keep the first line.
    """

    def __init__(
        self, executor: Executor, path: Path, watch: Watch | None = None, shared: Path | None = None
    ):
        """Read what is known, in a further file too that may not be written; `watch` hears of every architecture
        asked for, known or not.

        Raises:
            InvalidArtifactError: a line is damaged that is not the last; a cut last line (a killed run) is dropped.
        """
        self._executor, self._watch = executor, watch
        self._file = AccuracyFile(path, executor.fingerprint, shared)

    @property
    def fingerprint(self) -> str:
        return self._executor.fingerprint

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked; what is not in the file is evaluated and written as soon as it is known."""
        asked = {arch.to_json(): arch for arch in archs}
        known = self._file.read()
        # Sorted, those that begin alike follow one another, and share what their first blocks give.
        missing = [arch for text, arch in sorted(asked.items()) if text not in known]
        if self._watch is not None:
            for text, arch in asked.items():
                if text in known:
                    self._watch(arch, known[text])
        for arch, accuracy in self._executor.stream(missing) if missing else ():
            self._file.append(arch.to_json(), checked_accuracy(arch, accuracy))
            if self._watch is not None:
                self._watch(arch, accuracy)
        return [known[arch.to_json()] for arch in archs]
