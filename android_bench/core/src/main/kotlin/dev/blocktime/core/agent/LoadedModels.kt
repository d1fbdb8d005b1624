package dev.blocktime.core.agent

import dev.blocktime.core.runtime.Model
import dev.blocktime.core.wire.MAX_HANDLES
import dev.blocktime.core.wire.OpError

/** A [model] in memory, and the [sha256] of its file. */
internal class LoadedModel(
    val sha256: String,
    val model: Model,
) {
    val shortName: String get() = sha256.take(12)
}

/** What one connection has loaded. A handle is never used twice. */
internal class LoadedModels {
    private val byHandle = LinkedHashMap<Long, LoadedModel>()
    private var nextHandle = 1L

    /** Hashes of the files that are in use. */
    val hashes: Set<String> get() = byHandle.values.mapTo(HashSet()) { it.sha256 }

    /** Throws OpError `too_many_handles` where no further model may be loaded. */
    fun requirePlace() {
        if (byHandle.size >= MAX_HANDLES) {
            throw OpError("too_many_handles", "$MAX_HANDLES models are loaded; unload some first")
        }
    }

    fun add(loaded: LoadedModel): Long = nextHandle++.also { byHandle[it] = loaded }

    /** Throws OpError `unknown_handle`. */
    fun get(handle: Long): LoadedModel =
        byHandle[handle] ?: throw OpError("unknown_handle", "no model is loaded as handle $handle")

    fun close(handle: Long) {
        get(handle).model.close()
        byHandle -= handle
    }

    /** Closes all; a model that can't be closed does not keep the others. */
    fun closeAll() {
        for (loaded in byHandle.values) {
            try {
                loaded.model.close()
            } catch (error: RuntimeException) {
                error.printStackTrace()
            }
        }
        byHandle.clear()
    }
}
