package dev.blocktime.core.runtime

import dev.blocktime.core.wire.Tensor
import dev.blocktime.core.wire.TensorSpec
import java.io.Closeable
import java.io.File

/** A way to execute model files. */
interface Runtime {
    /** Version, backends and load options. */
    fun describe(): RuntimeInfo

    /**
     * Loads [file] afresh, sharing nothing with earlier loads of it. Values of [options] are Boolean, Long,
     * BigInteger or String.
     *
     * Throws OpError `bad_option`, `options_conflict`, `out_of_memory` or `bad_model`.
     */
    fun load(
        file: File,
        options: Map<String, Any>,
    ): Model
}

/** A loaded model; [close] frees it. All calls come from one thread. */
interface Model : Closeable {
    val inputs: List<TensorSpec>
    val outputs: List<TensorSpec>

    /** The load options in effect, defaults included. */
    val options: Map<String, Any>

    /** Nanoseconds in which the runtime opened the program and loaded its method, and nothing else (PROTOCOL.md, load). */
    val loadNs: Long

    /** Parts of the program that each backend took; null if the runtime does not report it. */
    val delegates: List<Delegate>?

    /**
     * A call of the model on [inputs], which are as the model's [inputs] say; conversion is done once, here.
     *
     * Throws OpError `bad_input` where the runtime can't take them.
     */
    fun prepare(inputs: List<Tensor>): Call

    override fun close()
}

/** One way to execute a model: what is timed. */
interface Call {
    /** Executes the model on the inputs that it was prepared with. Throws [ExecutionFailed]. */
    fun execute()

    /** Copies of the outputs of the last execution. */
    fun outputs(): List<Tensor>
}

/** The runtime failed while executing; [message] says how. */
class ExecutionFailed(
    override val message: String,
) : RuntimeException(message)

/** Parts of a program that [backend] took, each an entry and an exit. */
data class Delegate(
    val backend: String,
    val count: Int,
)

/** A runtime as described in the hello reply. */
data class RuntimeInfo(
    val version: String,
    val backends: List<String>,
    val options: Map<String, OptionInfo>,
)

/** One load option: its type (`bool`, `int` or `str`), its default, and its range or choices. */
data class OptionInfo(
    val type: String,
    val default: Any,
    val min: Int? = null,
    val max: Int? = null,
    val choices: List<String>? = null,
)
