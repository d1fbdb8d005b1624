package dev.blocktime.core.agent

import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Tests of agents that are stopped after each. */
abstract class AgentTest {
    @TempDir lateinit var folder: File
    protected val agents = mutableListOf<TestAgent>()

    protected fun agent(
        timeouts: Timeouts = Timeouts(),
        token: String? = TOKEN,
    ) = TestAgent(folder, timeouts, token).also(agents::add)

    @AfterEach
    fun stop() = agents.forEach(TestAgent::close)
}

/** A [PAIR] as `check` has it. */
internal val PAIR_FIELDS = listOf(mapOf("dtype" to "float32", "shape" to listOf(2)))

internal fun pair(
    first: Float,
    second: Float,
): ByteArray =
    ByteBuffer
        .allocate(8)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putFloat(first)
        .putFloat(second)
        .array()

internal fun run(
    handles: List<Long>,
    order: List<List<Int>>,
    warmup: Int = 0,
) = mapOf("handles" to handles, "order" to order, "warmup" to warmup)
