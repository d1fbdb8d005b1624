package dev.blocktime.core.agent

import java.io.IOException
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread

/**
 * Asked during a run with the number of executions so far: calls [beat] with it where [everyNs] have gone by, and says
 * whether to go on.
 */
internal class RunHeartbeat(
    private val clientIsThere: () -> Boolean,
    private val everyNs: Long,
    private val beat: (Int) -> Unit,
) {
    private var lastNs = System.nanoTime()

    fun goOn(executions: Int): Boolean {
        if (System.nanoTime() - lastNs >= everyNs) {
            beat(executions)
            lastNs = System.nanoTime()
        }
        return clientIsThere()
    }
}

/**
 * Does [work], which can't be interrupted, while a thread of its own calls [beat] every [everyS] seconds (0: never). None
 * is under way when it returns.
 */
internal fun <T> beating(
    everyS: Int,
    beat: () -> Unit,
    work: () -> T,
): T {
    if (everyS == 0) return work()
    val done = CountDownLatch(1)
    val beats =
        thread(name = "signs of life", isDaemon = true) {
            try {
                while (!done.await(everyS.toLong(), TimeUnit.SECONDS)) beat()
            } catch (_: IOException) {
                // The client is gone; the working thread will notice.
            }
        }
    try {
        return work()
    } finally {
        done.countDown()
        beats.join()
    }
}
