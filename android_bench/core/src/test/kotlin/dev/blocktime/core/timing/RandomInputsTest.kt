package dev.blocktime.core.timing

import dev.blocktime.core.wire.DType
import dev.blocktime.core.wire.TensorSpec
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.math.abs
import kotlin.math.sqrt

class RandomInputsTest {
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
