package dev.blocktime.core.wire

/** The order in which models are visited: [rounds] x [visits] indices, one round after the other. */
class Schedule(
    val rounds: Int,
    val visits: Int,
    val indices: IntArray,
)
