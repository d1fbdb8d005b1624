package dev.blocktime.executorch

import dev.blocktime.core.runtime.Delegate
import dev.blocktime.core.wire.DType
import dev.blocktime.core.wire.TensorSpec
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.Random

/** A model that tests/kotlin exports: a convolution lowered to XNNPACK, float32[1, 3, 32, 32] to float32[1, 8]. */
internal val MODEL = File(System.getProperty("blocktime.pte"))

class PteTest {
    @TempDir lateinit var folder: File

    @Test
    fun `inputs, outputs, delegates and planned memory`() {
        val summary = readPte(MODEL, "forward")
        assertEquals(listOf(TensorSpec(DType.FLOAT32, listOf(1, 3, 32, 32))), summary.inputs)
        assertEquals(listOf(TensorSpec(DType.FLOAT32, listOf(1, 8))), summary.outputs)
        assertEquals(listOf(Delegate("XnnpackBackend", 1)), summary.delegates)
        assertTrue(summary.plannedBytes >= 3 * 32 * 32 * 4)
    }

    @Test
    fun `no program, no such method, no file's end too early`() {
        val bytes = MODEL.readBytes()
        for (broken in listOf(byteArrayOf(1), ByteArray(64), bytes.copyOf(9), bytes.copyOf(40))) {
            val file = File(folder, "broken.pte").apply { writeBytes(broken) }
            assertThrows(PteException::class.java) { readPte(file, "forward") }
        }
        assertThrows(PteException::class.java) { readPte(MODEL, "backward") }
    }

    @Test
    fun `flipped bits are read or refused`() {
        val random = Random(11)
        val original = MODEL.readBytes()
        var refused = 0
        repeat(300) { number ->
            val bytes = original.copyOf()
            repeat(16) { bytes[random.nextInt(bytes.size)] = random.nextInt().toByte() }
            val file = File(folder, "$number.pte").apply { writeBytes(bytes) }
            try {
                readPte(file, "forward")
            } catch (_: PteException) {
                refused++
            }
            file.delete()
        }
        assertTrue(refused > 0)
    }
}
