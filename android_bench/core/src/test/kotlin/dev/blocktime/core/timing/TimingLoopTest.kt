package dev.blocktime.core.timing

import dev.blocktime.core.runtime.Call
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Schedule
import dev.blocktime.core.wire.Tensor
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class TimingLoopTest {
    private val visits = mutableListOf<Int>()

    private inner class Recorder(
        private val number: Int,
    ) : Call {
        override fun execute() {
            visits += number
        }

        override fun outputs() = emptyList<Tensor>()
    }

    private val calls = listOf(Recorder(0), Recorder(1))

    @Test
    fun `warm-ups come model by model and then the rounds in their order`() {
        val samples = timeSchedule(calls, Schedule(2, 3, intArrayOf(0, 1, 1, 1, 0, 1)), warmup = 2) { true }
        assertEquals(listOf(0, 0, 1, 1) + listOf(0, 1, 1) + listOf(1, 0, 1), visits)
        assertEquals(6, samples.size)
        assertTrue(samples.all { it > 0 })
    }

    @Test
    fun `a warmUp is climbed after the warm-ups, all models in turn`() {
        val warmUp = AdaptiveWarmUp(2, boundNs = 1)
        timeSchedule(calls, Schedule(1, 2, intArrayOf(1, 1)), warmup = 1, warmUp = warmUp) { true }
        assertEquals(listOf(0, 1) + listOf(0, 1) + listOf(1, 1), visits)
        assertEquals(1, warmUp.rounds)
        assertTrue(warmUp.ns > 0)
    }

    @Test
    fun `the processor is kept busy before every visit where it is asked for, and not within one`() {
        val warmUp = AdaptiveWarmUp(2, boundNs = 1)
        val startNs = System.nanoTime()
        val samples =
            timeSchedule(calls, Schedule(1, 40, IntArray(40)), warmup = 0, warmUp = warmUp, keepWarm = true) { true }
        assertTrue(System.nanoTime() - startNs >= 42 * 500_000)
        assertTrue(samples.min() < 500_000)
        assertEquals(listOf(0, 1) + List(40) { 0 }, visits)
    }

    @Test
    fun `a client that is gone ends the run before the next round`() {
        var asked = 0
        val error =
            assertThrows(OpError::class.java) {
                timeSchedule(calls, Schedule(3, 1, IntArray(3)), warmup = 0) { ++asked < 3 }
            }
        assertEquals("cancelled", error.code)
        assertEquals(listOf(0, 0), visits)
    }

    @Test
    fun `executions are told before rounds, and wherever they take long`() {
        val schedule = Schedule(2, 3, intArrayOf(0, 1, 1, 1, 0, 1))
        val told = mutableListOf<Int>()
        timeSchedule(calls, schedule, warmup = 2) { told.add(it) }
        assertEquals(listOf(4, 7), told)
        told.clear()
        timeSchedule(calls, schedule, warmup = 2, pieceNs = 0) { told.add(it) }
        assertEquals(listOf(0, 1, 2, 3) + listOf(4, 4, 5, 6) + listOf(7, 7, 8, 9), told)
    }

    @Test
    fun `medians by model`() {
        val schedule = Schedule(2, 3, intArrayOf(1, 0, 1, 1, 0, 1))
        assertEquals(mapOf(0 to 7L, 1 to 5L), medians(schedule, longArrayOf(5, 7, 1, 9, 3, 2)))
    }
}
