"""A backbone for another task: priced with its head, judged as the classifier that it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder, write_json
from orchestrator.tasks.evaluate import open_evaluator
from orchestrator.tasks.phones import Phone, budget_of, searchable
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.winner.card import save_weights
from orchestrator.winner.winner import ResultFolder
from search.algorithms import Budget, Objective, SearchResult, SearchSettings, search
from search.algorithms.cost import fingerprint
from search.algorithms.record import SearchInputs
from search.spaces import Arch, get_space
from search.spaces.registry import without_task
from search.spaces.task_heads import TaskName

PROXY = (
    "accuracy is a proxy: top-1 of the backbone as a classifier, with weights inherited from the supernet, not mAP "
    "or mIoU; latency is that of backbone and head together"
)


@dataclass(frozen=True)
class BackboneProxy:
    """Judges a network with a head by the classifier of its backbone.

    Attributes:
        inherited: Of classifiers.
        classes: That they tell apart.
    """

    inherited: Objective
    classes: int

    @property
    def fingerprint(self) -> str:
        """The classifiers' own: heads change nothing."""
        return self.inherited.fingerprint

    def accuracy(self, arch: Arch) -> float:
        """Top-1, 0 to 1."""
        return self.inherited.accuracy(without_task(arch).with_classes(self.classes))


@dataclass(frozen=True)
class FoundBackbone:
    """The search, the best network with its head for `--arch`, and its backbone's weights for `--init`."""

    result: SearchResult
    arch: Path
    weights: Path


def find_backbone(
    supernet: Path,
    phone: Phone,
    output: Path,
    *,
    budget: Budget | None = None,
    settings: SearchSettings | None = None,
    data: str | None = None,
    on: str = "auto",
    progress: Progress = silent,
) -> FoundBackbone:
    """The backbone that is most accurate as a classifier among those that meet a latency with their head.

    Args:
        supernet: Folder of a trained supernet of the space without a head.
        phone: A LUT of `SPACE.HEAD`, and the latency.
        output: Folder of the result, and of no other search.
        budget: What more than the latency must hold, as `budget_of` makes it.
        settings: How to search.
        data: Where the images of the supernet lie now, if elsewhere than the checkpoint says.
        on: `auto`, `cpu`, `cuda` or `mps`.
        progress: Told of every evaluation, and what the accuracy is of.

    Raises:
        InfeasibleError: nothing meets the latency; says the smallest that can be reached.
        UsageError: LUT and supernet don't fit together, or `output` holds another search.
    """
    check_folder(output)
    progress(Note(f"note: {PROXY}"))
    evaluator = open_evaluator(supernet, data, progress=progress)
    name = TaskName.parse(phone.lut.meta.space)
    if name is None or name.base != evaluator.supernet.space.name:
        raise UsageError(
            f"{phone.ref} is of {phone.lut.meta.space}, the supernet of {evaluator.supernet.space.name}; "
            "use a LUT of that space with a head"
        )
    evaluator.move_to(on)
    settings = settings or SearchSettings()
    space, budget = searchable([phone], get_space(phone.lut.meta.space)), budget or budget_of([phone])
    folder, own = ResultFolder(output), BackboneProxy(evaluator, evaluator.data.classes)
    folder.check(
        SearchInputs(
            space=space.name,
            space_digest=space.digest,
            evaluator=own.fingerprint,
            price=fingerprint([phone.price]),
            budget=budget,
            settings=settings,
        ),
        [phone.pin],
    )
    result = search(space, [phone.price], own, budget, settings, _begun(progress))
    folder.save(result)
    best = result.winner.architecture()
    weights = save_weights(
        evaluator, without_task(best).with_classes(evaluator.data.classes), output / "weights"
    )
    write_json(output / "winner.json", best.to_document())
    return FoundBackbone(result, output / "winner.json", weights)


def _begun(progress: Progress) -> Callable[[float, int], None]:
    def begun(share: float, evaluations: int) -> None:
        progress(
            Note(f"{100 * share:.3g} % of the space within the latency, up to {evaluations} will be judged")
        )

    return begun
