package dev.blocktime.core.timing

import dev.blocktime.core.OpError
import dev.blocktime.core.runtime.Call
import dev.blocktime.core.runtime.DType
import dev.blocktime.core.runtime.Tensor
import dev.blocktime.core.runtime.TensorSpec
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.math.abs
import kotlin.math.sqrt

class ScheduleTest {
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
    fun `medians by model`() {
        val schedule = Schedule(2, 3, intArrayOf(1, 0, 1, 1, 0, 1))
        assertEquals(mapOf(0 to 7L, 1 to 5L), medians(schedule, longArrayOf(5, 7, 1, 9, 3, 2)))
    }

    @Test
    fun `inputs are standard normal floats and zeros, and always the same`() {
        val spec = TensorSpec(DType.FLOAT32, listOf(100, 100))
        val (floats, integers) = randomInputs(listOf(spec, TensorSpec(DType.INT64, listOf(3))))
        val values = FloatArray(10_000) { floats.data.getFloat(4 * it) }
        assertTrue(abs(values.average()) < 0.05)
        assertTrue(abs(sqrt(values.sumOf { it.toDouble() * it } / values.size) - 1) < 0.05)
        assertEquals(24, integers.data.remaining())
        assertTrue((0 until 24).all { integers.data.get(it) == 0.toByte() })
        assertEquals(floats.data, randomInputs(listOf(spec))[0].data)
        assertEquals(0, randomInputs(listOf(TensorSpec(DType.FLOAT16, listOf(0, 3))))[0].data.remaining())
    }

    @Test
    fun `half floats have the nearest bits`() {
        val known =
            mapOf(
                0f to 0,
                1f to 0x3c00,
                -2f to 0xc000,
                0.1f to 0x2e66,
                1.9999f to 0x4000,
                3.14159f to 0x4248,
                1e-9f to 0,
            )
        assertEquals(known.values.toList(), known.keys.map { halfBits(it).toInt() and 0xffff })
    }
}
