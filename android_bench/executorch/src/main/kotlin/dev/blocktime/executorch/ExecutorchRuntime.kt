package dev.blocktime.executorch

import dev.blocktime.core.device.parseCores
import dev.blocktime.core.runtime.Model
import dev.blocktime.core.runtime.OptionInfo
import dev.blocktime.core.runtime.Runtime
import dev.blocktime.core.runtime.RuntimeInfo
import dev.blocktime.core.wire.OpError
import org.pytorch.executorch.ExecuTorchRuntime
import org.pytorch.executorch.ExecutorchRuntimeException
import org.pytorch.executorch.Module
import java.io.File

private const val METHOD = "forward"
private const val THREADS = "threads"
private const val CORES = "cores"
private const val SUSTAINED = "sustained_performance"
private const val MAX_REASON = 200

/** The file is mapped and XNNPACK packs the weights into memory of its own, so they may be resident twice. */
private const val COPIES_OF_WEIGHTS = 2

/** Left to the rest of the system, so that a load never drives the device into swapping or the app to its end. */
private const val SPARE_MEMORY_BYTES = 256L shl 20

private val MEMORY_ERRORS =
    setOf(
        ExecutorchRuntimeException.MEMORY_ALLOCATION_FAILED,
        ExecutorchRuntimeException.OUT_OF_RESOURCES,
        ExecutorchRuntimeException.DELEGATE_MEMORY_ALLOCATION_FAILED,
    )

/**
 * ExecuTorch behind the agent's Runtime: loads .pte files through ExecuTorch's Android API.
 *
 * [version] is that of the ExecuTorch in use, which the API does not expose. [cores] are those of the device, of which
 * [defaultThreads] are used by default.
 *
 * XNNPACK binds a model to the process-wide thread pool when the model is loaded, and another thread count frees that
 * pool. So the count may only change while no model is loaded, and all loaded models share one, as they share the cores
 * that threads are pinned to.
 *
 * [sustain] has the device keep its clocks where it can hold them, or no longer; null where it has no such mode.
 */
class ExecutorchRuntime(
    private val version: String,
    private val cores: List<Int>,
    private val defaultThreads: Int,
    private val clockNs: () -> Long = System::nanoTime,
    private val sustain: ((Boolean) -> Unit)? = null,
    private val freeMemoryBytes: () -> Long?,
) : Runtime {
    private var loaded = 0
    private var inUse = emptyMap<String, Any>()
    private var pinned = ""

    private val optionInfo =
        buildMap {
            put(THREADS, OptionInfo("int", default = defaultThreads, min = 1, max = cores.size))
            if (Affinity.isAvailable) put(CORES, OptionInfo("str", default = ""))
            if (sustain != null) put(SUSTAINED, OptionInfo("bool", default = false))
        }

    override fun describe(): RuntimeInfo =
        RuntimeInfo(
            version,
            ExecuTorchRuntime.getRegisteredBackends().sorted(),
            optionInfo,
        )

    override fun load(
        file: File,
        options: Map<String, Any>,
    ): Model {
        val checked = checked(options)
        val summary = summary(file)
        requireMemory(file.length(), summary.plannedBytes)
        // Before the pool: its threads run where the thread that starts them may.
        pin(checked[CORES] as String? ?: "")
        sustain?.invoke(checked[SUSTAINED] as Boolean)
        inUse = checked
        val startNs = clockNs()
        val module = open(file, checked[THREADS] as Int)
        val loadNs = clockNs() - startNs
        loaded++
        return ExecutorchModel(module, summary, checked, loadNs) { loaded-- }
    }

    private fun pin(list: String) {
        if (list == pinned) return
        val errno = Affinity.pin(if (list.isEmpty()) cores else parseCores(list))
        if (errno !=
            0
        ) {
            throw OpError("bad_option", "cores=$list: the system does not allow them (errno $errno); choose others")
        }
        pinned = list
    }

    private fun open(
        file: File,
        threads: Int,
    ): Module {
        var module: Module? = null
        try {
            module = Module.load(file.path, Module.LOAD_MODE_MMAP, threads)
            module.loadMethod(METHOD)
            return module
        } catch (error: RuntimeException) {
            module?.destroy()
            val memory = error is ExecutorchRuntimeException && error.errorCode in MEMORY_ERRORS
            val reason = (error.message ?: error.toString()).take(MAX_REASON)
            throw OpError(
                if (memory) "out_of_memory" else "bad_model",
                "ExecuTorch $version can't load the model ($reason); export it again",
            )
        }
    }

    /** All options in effect. */
    private fun checked(options: Map<String, Any>): Map<String, Any> {
        val unknown = options.keys.filter { it !in optionInfo }.minOrNull()
        if (unknown != null) {
            throw OpError(
                "bad_option",
                "executorch has no option '$unknown'; it has: ${optionInfo.keys.joinToString()}",
            )
        }
        val list = options[CORES] ?: ""
        val most = checkedCores(list).size
        val threads = options[THREADS] ?: minOf(most, defaultThreads).toLong()
        if (threads !is Long || threads !in 1L..most) {
            throw OpError("bad_option", "threads must be 1 to $most here, got $threads")
        }
        val sustained = options[SUSTAINED] ?: false
        if (sustained !is Boolean) throw OpError("bad_option", "$SUSTAINED must be true or false, got $sustained")
        val checked =
            mapOf(THREADS to threads.toInt(), CORES to list, SUSTAINED to sustained).filterKeys { it in optionInfo }
        val other = checked.entries.find { loaded > 0 && it.value != inUse[it.key] } ?: return checked
        throw OpError(
            "options_conflict",
            "${other.key}=${other.value} asked, but $loaded models are loaded with ${other.key}=${inUse[other.key]}; " +
                "unload them first",
        )
    }

    /** The cores to use: those of a list, all of the device where it is empty. */
    private fun checkedCores(list: Any): List<Int> {
        if (list == "") return cores
        val wanted =
            try {
                parseCores(list.toString())
            } catch (error: IllegalArgumentException) {
                throw OpError("bad_option", "cores: ${error.message}")
            }
        if (list !is String || !cores.containsAll(wanted)) {
            throw OpError("bad_option", "cores must be of ${cores.first()}-${cores.last()} here, got $list")
        }
        return wanted
    }

    private fun summary(file: File): PteSummary {
        val summary =
            try {
                readPte(file, METHOD)
            } catch (error: PteException) {
                throw OpError("bad_model", "the model is damaged or not a .pte: ${error.message}; export it again")
            }
        val other = (summary.inputs + summary.outputs).find { it.dtype !in CARRIED_TYPES } ?: return summary
        throw OpError(
            "bad_model",
            "the model has a tensor of ${other.dtype.wireName}, which ExecuTorch's Android API does not carry; " +
                "export it with another type",
        )
    }

    private fun requireMemory(
        fileBytes: Long,
        plannedBytes: Long,
    ) {
        val freeBytes = freeMemoryBytes() ?: return
        val spareBytes = freeBytes - SPARE_MEMORY_BYTES
        if (COPIES_OF_WEIGHTS * fileBytes <= spareBytes - plannedBytes) return
        val neededMib = COPIES_OF_WEIGHTS * (fileBytes shr 20) + (plannedBytes shr 20)
        throw OpError(
            "out_of_memory",
            "the model needs about $neededMib MiB and ${freeBytes shr 20} MiB are free " +
                "(${SPARE_MEMORY_BYTES shr 20} MiB are kept spare); unload models or take a smaller one",
        )
    }
}
