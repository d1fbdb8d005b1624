"""A search that found three networks."""

import pytest

from luts.format.provenance import CodeVersion
from search.algorithms import Constraints, SearchResult, SearchSettings
from search.algorithms.record import CoarseStage, Generation, LutPin, Provenance
from tests.support.report_world import evaluated
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
        provenance=Provenance(
            luts=(LutPin(name="phone/autovit-nano/x/v3", sha256="b" * 64),),
            checkpoint="c" * 64,
            data="npz:images.npz",
            data_digest="d" * 64,
            split="search",
            split_seed=0,
            split_fraction=0.1,
            code=CodeVersion(package="0.1.0", commit="1" * 40, sources="e" * 64),
        ),
    )
