"""Search spaces, networks as torch modules, supernets, and the search for the best network within a budget.

    import search

    arch = search.get_arch("autovit-xxs-paper")    # load_arch("mine.json"), get_space("autovit-xxs").sample(rng)
    arch.params(), arch.macs(), arch.keys()
    network = search.build_network(arch.blocks())

    objective = search.open_objective("inherited-accuracy", supernet_folder)
    result = search.search(search.covered_space(lut), lut, objective, search.Constraints(latency_ms=10))
    result.winner.architecture()

A user's own blocks, spaces, strategies and objectives register themselves (`register`, `module_of.register`,
`register_space`, `register_strategy`, `register_objective`); in a file that `load_plugin` imports they are known to
worker processes too. Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from luts.format.lazy import lazy_names

if TYPE_CHECKING:
    from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
    from luts.format.provenance import __version__
    from search.algorithms import (
        CachedEvaluator,
        Constraints,
        InfeasibleError,
        InProcess,
        Objective,
        SearchResult,
        SearchSettings,
        Strategy,
        Study,
        objective_names,
        open_objective,
        register_objective,
        register_strategy,
        search,
        strategy_names,
    )
    from search.blocks import BlockSpec, EnclosingSpec, Macs, param, parse_key, register
    from search.networks import build_network, module_around, module_of
    from search.spaces import (
        Arch,
        Published,
        Space,
        Stage,
        get_arch,
        get_space,
        list_archs,
        list_published,
        list_spaces,
        load_arch,
        register_head,
        register_space,
        register_stage,
    )
    from search.spaces.plugins import load_plugin
    from search.spaces.scope import covered_space
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
