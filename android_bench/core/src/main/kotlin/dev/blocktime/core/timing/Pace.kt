package dev.blocktime.core.timing

/**
 * Moments [periodNs] apart, as a camera's frames come: the processor idles between calls, and its clock falls. What comes
 * late shifts all that follow, so that none are crowded. 0: no waiting at all.
 */
class Pace(
    private val periodNs: Long,
    private val clockNs: () -> Long = System::nanoTime,
    private val sleepNs: (Long) -> Unit = { Thread.sleep(it / NS_PER_MS, (it % NS_PER_MS).toInt()) },
) {
    private var nextNs = Long.MIN_VALUE

    /** Until the next moment; the first one is now. The time waited, in nanoseconds. */
    fun await(): Long {
        if (periodNs == 0L) return 0
        val nowNs = clockNs()
        val waitNs = if (nextNs == Long.MIN_VALUE) 0 else maxOf(0, nextNs - nowNs)
        if (waitNs > 0) sleepNs(waitNs)
        nextNs = nowNs + waitNs + periodNs
        return waitNs
    }
}

private const val NS_PER_MS = 1_000_000L
