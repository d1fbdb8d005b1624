package dev.blocktime.executorch

import dev.blocktime.core.device.allowedCores
import dev.blocktime.core.device.parseCores
import dev.blocktime.core.timing.randomInputs
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Tensor
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** The app's ExecuTorch code over the stand-in of the Android API: real models, really executed. */
class ExecutorchRuntimeTest {
    @TempDir lateinit var folder: File

    private fun runtime(freeBytes: Long? = null) =
        ExecutorchRuntime("1", cores = listOf(0, 1), defaultThreads = 2) {
            freeBytes
        }

    private fun code(action: () -> Unit): String = assertThrows(OpError::class.java) { action() }.code

    private fun floats(tensor: Tensor): List<Float> {
        val values =
            tensor.data
                .duplicate()
                .order(tensor.data.order())
                .asFloatBuffer()
        return List(values.remaining()) { values[it] }
    }

    @Test
    fun `executes twice alike and answers what its specs say`() {
        val runtime = runtime()
        runtime.load(MODEL, mapOf("threads" to 1L)).use { model ->
            assertEquals(mapOf("threads" to 1, "cores" to ""), model.options)
            val call = model.prepare(randomInputs(model.inputs))
            val answers =
                List(2) {
                    call.execute()
                    call.outputs().single()
                }
            assertEquals(model.outputs.single(), answers[0].spec)
            assertEquals(8, floats(answers[0]).size)
            assertTrue(floats(answers[0]).any { it != 0f })
            assertEquals(floats(answers[0]), floats(answers[1]))
        }
        assertTrue("XnnpackBackend" in runtime.describe().backends)
    }

    @Test
    fun `options are checked and threads agree among loaded models`() {
        val runtime = runtime()
        for (options in listOf(
            mapOf("threads" to 0L),
            mapOf("threads" to 3L),
            mapOf("threads" to true),
            mapOf("core" to 1L),
            mapOf("cores" to 1L),
            mapOf("cores" to "1-0"),
            mapOf("cores" to "0-2"),
            mapOf("cores" to "0", "threads" to 2L),
        )) {
            assertEquals("bad_option", code { runtime.load(MODEL, options) }, "$options")
        }
        val first = runtime.load(MODEL, mapOf("threads" to 1L))
        assertEquals("options_conflict", code { runtime.load(MODEL, mapOf("threads" to 2L)) })
        runtime.load(MODEL, mapOf("threads" to 1L)).close()
        first.close()
        runtime.load(MODEL, emptyMap()).use { assertEquals(mapOf("threads" to 2, "cores" to ""), it.options) }
    }

    @Test
    fun `threads are pinned to cores, and free again afterwards`() {
        val all = requireNotNull(allowedCores(File("/proc/thread-self/status").readText()))
        val cores = parseCores(all)
        val runtime = ExecutorchRuntime("1", cores, defaultThreads = cores.size) { null }
        val last = cores.last().toString()
        runtime.load(MODEL, mapOf("cores" to last)).use { model ->
            assertEquals(mapOf("threads" to 1, "cores" to last), model.options)
            assertEquals(setOf(last), coresOfAllThreads())
            assertEquals("options_conflict", code { runtime.load(MODEL, mapOf("threads" to 1L)) })
        }
        runtime.load(MODEL, mapOf("threads" to 1L)).close()
        assertEquals(setOf(all), coresOfAllThreads())
    }

    private fun coresOfAllThreads(): Set<String?> =
        File("/proc/self/task")
            .listFiles()
            .orEmpty()
            .mapNotNull { runCatching { File(it, "status").readText() }.getOrNull() }
            .map(::allowedCores)
            .toSet()

    @Test
    fun `the time of a load is that of program and method alone`() {
        val asked = mutableListOf<String>()

        fun clockNs(): Long {
            asked += "clock"
            return 40L * asked.size
        }

        fun freeBytes(): Long? {
            asked += "memory"
            return null
        }
        val runtime = ExecutorchRuntime("1", listOf(0, 1), 1, ::clockNs, freeMemoryBytes = ::freeBytes)
        runtime.load(MODEL, emptyMap()).use { assertEquals(40, it.loadNs) }
        assertEquals(listOf("memory", "clock", "clock"), asked)
    }

    @Test
    fun `sustained performance is off unless it is asked for, and one for all loaded models`() {
        val asked = mutableListOf<Boolean>()
        val runtime = ExecutorchRuntime("1", listOf(0, 1), 1, sustain = asked::add) { null }
        runtime.load(MODEL, emptyMap()).use { assertEquals(false, it.options["sustained_performance"]) }
        runtime.load(MODEL, mapOf("sustained_performance" to true)).use {
            assertEquals(true, it.options["sustained_performance"])
            assertEquals("options_conflict", code { runtime.load(MODEL, emptyMap()) })
        }
        assertEquals("bad_option", code { runtime.load(MODEL, mapOf("sustained_performance" to 1L)) })
        assertEquals(listOf(false, true), asked)
        assertEquals("bool", runtime.describe().options["sustained_performance"]?.type)
        // A device without that mode.
        assertEquals("bad_option", code { runtime().load(MODEL, mapOf("sustained_performance" to true)) })
    }

    @Test
    fun `what does not fit into memory is refused before it is loaded`() {
        assertEquals("out_of_memory", code { runtime(freeBytes = 200L shl 20).load(MODEL, emptyMap()) })
        runtime(freeBytes = 300L shl 20).load(MODEL, emptyMap()).close()
    }

    @Test
    fun `truncated models are refused and the next is loaded`() {
        val runtime = runtime()
        val bytes = MODEL.readBytes()
        for (size in listOf(1, 40, bytes.size / 2, bytes.size - 1)) {
            val file = File(folder, "$size.pte").apply { writeBytes(bytes.copyOf(size)) }
            assertEquals("bad_model", code { runtime.load(file, emptyMap()) }, "$size bytes")
        }
        runtime.load(MODEL, mapOf("threads" to 1L)).close()
    }
}
