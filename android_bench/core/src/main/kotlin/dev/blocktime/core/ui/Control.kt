package dev.blocktime.core.ui

import dev.blocktime.core.device.Caveat
import java.io.IOException
import java.io.InputStream

private const val MIN_TOKEN_CHARS = 16
private const val MAX_TOKEN_CHARS = 256

/** Out-of-band settings of the app: the token, and conditions that do not prevent measuring. */
class Control {
    /** The token that clients must greet with, null until one was given. In memory alone: a new process has none. */
    @Volatile var token: String? = null
        private set

    /** Reasons that the user allowed; replaced as a whole at every start. */
    @Volatile var allowed: Set<Caveat> = emptySet()
        private set

    /**
     * Takes the token from [source]: 16 to 256 visible ASCII characters and nothing else. Reads no more than one byte
     * too many, and closes [source]. Throws IOException for anything else and keeps the former token then.
     */
    fun acceptToken(source: InputStream) {
        val bytes = source.use { it.readUpTo(MAX_TOKEN_CHARS + 1) }
        if (bytes.size !in MIN_TOKEN_CHARS..MAX_TOKEN_CHARS || bytes.any { it !in '!'.code..'~'.code }) {
            throw IOException(
                "a token has $MIN_TOKEN_CHARS to $MAX_TOKEN_CHARS visible ASCII characters; keeping the last",
            )
        }
        token = String(bytes, Charsets.US_ASCII)
    }

    /** Allows the reasons that [names] name, and only these. Throws IllegalArgumentException for an unknown one, allowing none. */
    fun allow(names: List<String>) {
        allowed = emptySet()
        allowed = Caveat.parse(names.joinToString(","))
    }
}

private fun InputStream.readUpTo(limit: Int): ByteArray {
    val buffer = ByteArray(limit)
    var filled = 0
    while (filled < limit) {
        val count = read(buffer, filled, limit - filled)
        if (count < 0) break
        filled += count
    }
    return buffer.copyOf(filled)
}
