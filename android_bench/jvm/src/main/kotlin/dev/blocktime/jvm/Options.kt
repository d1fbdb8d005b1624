package dev.blocktime.jvm

import dev.blocktime.core.store.DEFAULT_STORE_BYTES
import java.io.File

/** A command line that can't be obeyed; [message] says why. */
class UsageException(
    override val message: String,
) : Exception(message)

/** The options of PROTOCOL.md, "Agents as programs". */
data class Options(
    val store: File,
    val storeBytes: Long = DEFAULT_STORE_BYTES,
    val port: Int = 0,
    val parentWatch: Boolean = false,
    val simulate: String? = null,
    val bundle: File? = null,
    val journal: File? = null,
) {
    companion object {
        private val KNOWN =
            listOf("--store", "--store-bytes", "--port", "--parent-watch", "--simulate", "--bundle", "--journal")
        private const val MAX_PORT = 65_535L

        /** Throws [UsageException]. */
        fun parse(args: List<String>): Options {
            val values = HashMap<String, String>()
            val rest = ArrayDeque(args)
            while (rest.isNotEmpty()) {
                val (name, joined) = rest.removeFirst().let { it.substringBefore('=') to it.substringAfter('=', NONE) }
                if (name !in KNOWN) throw UsageException("unknown option $name; known: ${KNOWN.joinToString()}")
                values[name] =
                    when {
                        name == "--parent-watch" -> NONE
                        joined != NONE -> joined
                        else -> rest.removeFirstOrNull() ?: throw UsageException("$name needs a value")
                    }
            }
            return Options(
                store = File(values["--store"] ?: throw UsageException("--store is needed: folder of the model store")),
                storeBytes =
                    values["--store-bytes"]?.let { number("--store-bytes", it, Long.MAX_VALUE) } ?: DEFAULT_STORE_BYTES,
                port = values["--port"]?.let { number("--port", it, MAX_PORT) }?.toInt() ?: 0,
                parentWatch = "--parent-watch" in values,
                simulate = values["--simulate"],
                bundle = values["--bundle"]?.let(::File),
                journal = values["--journal"]?.let(::File),
            )
        }

        private fun number(
            name: String,
            text: String,
            max: Long,
        ): Long =
            text.toLongOrNull()?.takeIf { it in 0..max }
                ?: throw UsageException("$name $text: expected a number from 0 to $max")

        private const val NONE = "\u0000"
    }
}
