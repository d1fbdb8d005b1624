"""Latency look-up tables (LUTs): what every block of a mobile network costs on a device, in milliseconds.

    import luts

    lut = luts.load("autovit-xxs/executorch-xnnpack-fp32-t1")    # a name, parts of one, or a folder
    lut.predict(network).ms                                      # an architecture, or its block keys
    lut.to_pandas().sort_values("ms")

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from luts.format.lazy import lazy_names

if TYPE_CHECKING:
    from luts.diff import LutDiff, diff_luts
    from luts.format.errors import BlocktimeError, InvalidArtifactError, StorageError, UsageError
    from luts.format.latency import LatencyModel, Prediction
    from luts.format.lut import Lut, Network
    from luts.format.provenance import __version__
    from luts.format.store import LutRef
    from luts.format.store import list_luts as list  # noqa: A004
    from luts.format.store import load_lut as load
    from luts.published import PublishedLut, load_published_lut, read_table
    from luts.verify import verify_lut
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
