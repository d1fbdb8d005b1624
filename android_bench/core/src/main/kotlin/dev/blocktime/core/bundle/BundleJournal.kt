package dev.blocktime.core.bundle

import dev.blocktime.core.wire.JsonException
import dev.blocktime.core.wire.readJson
import dev.blocktime.core.wire.writeJson
import java.io.ByteArrayOutputStream
import java.io.Closeable
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.RandomAccessFile
import java.nio.ByteBuffer

private const val HEAD = "{\"chain\":\""
private const val MIDDLE = "\",\"record\":"
private const val TAIL = "}\n"
private const val DIGEST_CHARS = 64
private const val BODY = HEAD.length + DIGEST_CHARS + MIDDLE.length

/**
 * The journal of a bundle, as PROTOCOL.md says: lines that are chained by digests, each on the disk before anything
 * else happens. [each] is given the records that are there already.
 *
 * Throws [BundleException] where the file is damaged or belongs to another bundle, and IOException.
 */
class BundleJournal(
    private val path: File,
    private val bundleDigest: String,
    each: (Map<String, Any?>) -> Unit,
) : Closeable {
    private val file = RandomAccessFile(path, "rw")
    private var chain = bundleDigest

    /** Whether nothing has been written yet. */
    var isEmpty = true
        private set

    init {
        try {
            file.channel.tryLock() ?: throw IOException("$path is being written by another agent; stop that one")
            file.setLength(read(each))
            file.seek(file.length())
        } catch (error: Throwable) {
            file.close()
            throw error
        }
    }

    /** Writes a record, on the disk when this returns. */
    fun append(record: Map<String, Any?>) {
        val body = writeJson(record)
        chain = sha256((chain + body).toByteArray(Charsets.US_ASCII))
        val line = ByteBuffer.wrap((HEAD + chain + MIDDLE + body + TAIL).toByteArray(Charsets.US_ASCII))
        while (line.hasRemaining()) file.channel.write(line)
        file.channel.force(false)
        isEmpty = false
    }

    override fun close() = file.close()

    /** The offset after the last whole line. */
    private fun read(each: (Map<String, Any?>) -> Unit): Long {
        var good = 0L
        path.inputStream().buffered().use { input ->
            for ((index, line) in generateSequence { readLine(input) }.withIndex()) {
                val record = decode(line)
                if (index == 0) checkBundle(record)
                if (record == null || !isLinked(line)) {
                    throw BundleException("$path: line ${index + 1} was changed or damaged; give another journal")
                }
                each(record)
                isEmpty = false
                good += line.size
            }
        }
        return good
    }

    /** A line with its end; null where there is none. */
    private fun readLine(input: InputStream): ByteArray? {
        val line = ByteArrayOutputStream()
        while (true) {
            val byte = input.read()
            if (byte < 0) return null
            line.write(byte)
            if (byte == '\n'.code) return line.toByteArray()
        }
    }

    private fun checkBundle(first: Map<String, Any?>?) {
        if (first?.get("kind") != "bundle") throw BundleException("$path is not a journal of a bundle; give another")
        if (first["bundle"] != bundleDigest) {
            throw BundleException("$path belongs to another bundle; give another journal, or move it away")
        }
    }

    private fun isLinked(line: ByteArray): Boolean {
        val body = line.copyOfRange(BODY, line.size - TAIL.length)
        chain = sha256(chain.toByteArray(Charsets.US_ASCII) + body)
        return chain == String(line, HEAD.length, DIGEST_CHARS, Charsets.US_ASCII)
    }

    @Suppress("UNCHECKED_CAST") // the reader makes only string keys
    private fun decode(line: ByteArray): Map<String, Any?>? {
        if (line.size < BODY + TAIL.length) return null
        val text = String(line, 0, BODY, Charsets.US_ASCII)
        if (!text.startsWith(HEAD) || !text.endsWith(MIDDLE)) return null
        return try {
            readJson(line.copyOfRange(BODY, line.size - TAIL.length)) as? Map<String, Any?>
        } catch (_: JsonException) {
            null
        }
    }
}
