"""The trained networks of two studies: heads that see all channels, heads that see a split, equally large."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.blocks import BlockSpec, count
from search.supernet.data.images import ImageData
from tools.studies._networks import HEADS, check_equal, classifier
from tools.studies._options import Options
from tools.studies._training import Job, Trained, judged, open_images, train_all

DEPTH, CHANNELS, ATTENTION_HEADS, QK_DIM = 4, 48, 4, 8
QUICK_DEPTH, QUICK_CHANNELS = 2, 16

NAMES = {"full": "MHSA, all channels", "split": "CGA, a split each"}


@dataclass(frozen=True)
class Pair:
    """Networks of each kind (`full`, `split`), one a seed, and their blocks."""

    images: ImageData
    blocks: dict[str, tuple[BlockSpec, ...]]
    trained: dict[str, list[Trained]]

    def networks(self) -> Iterator[tuple[str, Sequence[BlockSpec], Trained]]:
        """Each network with its kind and blocks."""
        for kind, trained in self.trained.items():
            for one in trained:
                yield kind, self.blocks[kind], one


def trained_pair(options: Options) -> Pair:
    """Train what is not trained yet; `UsageError` where there are no images to train on."""
    images = open_images(options.data, options.quick)
    depth, channels = (QUICK_DEPTH, QUICK_CHANNELS) if options.quick else (DEPTH, CHANNELS)
    blocks = {
        kind: classifier(kind, depth, channels, ATTENTION_HEADS, QK_DIM, images.classes) for kind in HEADS
    }
    check_equal(list(blocks.values()))
    jobs = {
        kind: [
            Job(
                keys=tuple(block.key for block in network),
                data=options.data or "digits",
                digest=images.source.digest,
                epochs=options.epochs,
                seed=seed,
                quick=options.quick,
            )
            for seed in range(options.seeds)
        ]
        for kind, network in blocks.items()
    }
    everything = train_all([job for of_kind in jobs.values() for job in of_kind], options)
    return Pair(
        images,
        blocks,
        {kind: everything[i * options.seeds : (i + 1) * options.seeds] for i, kind in enumerate(jobs)},
    )


def setting(pair: Pair, options: Options) -> str:
    """A sentence on networks, training and accuracy."""
    sizes = {kind: count(blocks)[0] for kind, blocks in pair.blocks.items()}
    lines = [
        f"{NAMES[kind]}: {sizes[kind]:,} parameters, top-1 "
        f"{mean_and_range([one.accuracy for one in trained], '.1%')}"
        for kind, trained in pair.trained.items()
    ]
    return (
        f"{options.seeds} networks of each kind, {options.epochs} epochs on {len(pair.images.split.train):,} "
        f"images of {Path(pair.images.source.name).stem} ({pair.images.classes} classes) at 32 px, 64 tokens a "
        f"block; {'; '.join(lines)} on {len(judged(pair.images, options.quick)):,} images held out."
    )


def mean_and_range(values: Sequence[float], form: str) -> str:
    """Mean, and the smallest and largest over seeds where there are several."""
    mean = format(statistics.fmean(values), form)
    if len(values) == 1:
        return mean
    return f"{mean} ({format(min(values), form)} to {format(max(values), form)})"
