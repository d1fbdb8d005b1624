package dev.blocktime.core.timing

import dev.blocktime.core.wire.Schedule

/** Median in nanoseconds of the [samples] of each model that [schedule] visits, by its index; for people to look at. */
fun medians(
    schedule: Schedule,
    samples: LongArray,
): Map<Int, Long> =
    schedule.indices.indices
        .groupBy({ schedule.indices[it] }, { samples[it] })
        .mapValues { (_, visits) -> visits.sorted()[visits.size / 2] }
        .toSortedMap()
