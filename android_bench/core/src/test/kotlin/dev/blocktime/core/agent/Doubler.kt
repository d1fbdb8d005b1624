package dev.blocktime.core.agent

import dev.blocktime.core.runtime.Call
import dev.blocktime.core.runtime.Delegate
import dev.blocktime.core.runtime.ExecutionFailed
import dev.blocktime.core.runtime.Model
import dev.blocktime.core.runtime.Runtime
import dev.blocktime.core.runtime.RuntimeInfo
import dev.blocktime.core.wire.DType
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Tensor
import dev.blocktime.core.wire.TensorSpec
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.CopyOnWriteArrayList

val PAIR = TensorSpec(DType.FLOAT32, listOf(2))

/**
 * Models made of arithmetic: each answers twice its input. A file of text `fail` loads but fails to execute, `explode`
 * fails to load with a defect, and `hungry` finds no memory.
 */
class DoublerRuntime : Runtime {
    val executions = CopyOnWriteArrayList<String>()
    val closed = CopyOnWriteArrayList<String>()

    /** Lets a test step in while a model executes. */
    @Volatile var onExecute: () -> Unit = {}

    /** Lets a test step in while a model is loaded. */
    @Volatile var onLoad: () -> Unit = {}

    override fun describe() = RuntimeInfo("1", emptyList(), emptyMap())

    override fun load(
        file: File,
        options: Map<String, Any>,
    ): Model {
        onLoad()
        if (options.isNotEmpty()) throw OpError("bad_option", "there are no options")
        return when (val text = file.readText()) {
            "explode" -> throw ArithmeticException("a defect")
            "hungry" -> throw OutOfMemoryError()
            else -> Doubler(text)
        }
    }

    private inner class Doubler(
        private val text: String,
    ) : Model {
        override val inputs = listOf(PAIR)
        override val outputs = inputs
        override val options = emptyMap<String, Any>()
        override val loadNs = 7L
        override val delegates: List<Delegate>? = null

        override fun prepare(inputs: List<Tensor>) = Doubling(text, inputs.single())

        override fun close() {
            closed += text
        }
    }

    private inner class Doubling(
        private val text: String,
        private val input: Tensor,
    ) : Call {
        private val output = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)

        override fun execute() {
            executions += text
            onExecute()
            if (text == "fail") throw ExecutionFailed("the file says so")
            for (index in 0..1) output.putFloat(4 * index, 2 * input.data.getFloat(4 * index))
        }

        override fun outputs() = listOf(Tensor(PAIR, output))
    }
}
