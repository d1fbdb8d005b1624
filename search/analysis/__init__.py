"""What a trained network does inside: similarity of attention heads, importance of channels."""

from search.analysis.attention import BlockMaps, HeadSimilarity, attention_maps, head_similarity
from search.analysis.importance import (
    ChannelImportance,
    kept_shares,
    relative_to_layer,
    taylor_importance,
)
from search.analysis.parts import Part, parts_of

__all__ = [
    "BlockMaps",
    "ChannelImportance",
    "HeadSimilarity",
    "Part",
    "attention_maps",
    "head_similarity",
    "kept_shares",
    "parts_of",
    "relative_to_layer",
    "taylor_importance",
]
