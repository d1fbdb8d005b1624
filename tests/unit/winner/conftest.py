"""A search that found three networks."""

import pytest

from search.algorithms import Constraints, SearchResult, SearchSettings
from search.algorithms.record import CoarseStage, Generation
from tests.support.report_world import evaluated, make_provenance
from tests.support.winner_world import SPACE, fresh_archs


@pytest.fixture
def result():
    archs = fresh_archs(3)
    found = tuple(
        evaluated(arch, *values, generation=0)
        for arch, values in zip(archs, ((0.5, 1), (0.9, 3), (0.8, 2)), strict=True)
    )
    return SearchResult(
        space=SPACE.name,
        space_digest=SPACE.digest,
        evaluator="a" * 64,
        price="b" * 64,
        constraints=Constraints(latency_ms=3.5),
        settings=SearchSettings(seed=7),
        coarse=CoarseStage(priced=9, feasible=3, skeletons=1, smallest_ms=1),
        history=(Generation(index=0, new=3, best=0.9, mean=0.7),),
        evaluated=found,
        winner=found[1],
        provenance=make_provenance("b" * 64, "phone/autovit-nano/x/v3"),
    )
