package dev.blocktime.core.bundle

import dev.blocktime.core.store.hex
import dev.blocktime.core.wire.CHUNK_BYTES
import dev.blocktime.core.wire.JsonException
import dev.blocktime.core.wire.PROTOCOL_VERSION
import dev.blocktime.core.wire.readJson
import java.io.File
import java.io.RandomAccessFile
import java.security.MessageDigest

/** A bundle, or a journal of one, that can't be used; [message] is one line for people. */
class BundleException(
    override val message: String,
) : Exception(message)

/** Position of a file's bytes in a bundle. */
class Place(
    val offset: Long,
    val bytes: Long,
)

private const val FORMAT = 1L
private const val MAX_TEXT_BYTES = 8L shl 20
private const val MAX_FILES = 4096
private const val MANIFEST = "manifest.json"
private const val PLAN = "plan.json"
private const val SCRIPT = "script.json"
private const val MODELS = "models/"

/** Bytes of a tar's header, and what contents are filled up to. */
private const val BLOCK = 512

/**
 * A bundle of PROTOCOL.md, "Bundles", whose files are all there. Throws [BundleException] where that is not so, and
 * IOException where it can't be read. Models are checked as they are stored.
 */
class BundleFile(
    val file: File,
) {
    val manifestText: ByteArray
    val plan: ByteArray
    val digest: String
    val deviceKind: String
    val script: Script
    private val places: Map<String, Place>

    init {
        RandomAccessFile(file, "r").use { tar ->
            places = readPlaces(tar)
            manifestText = text(tar, MANIFEST)
            digest = sha256(manifestText)
            val manifest = objectIn(manifestText, MANIFEST)
            checkVersions(manifest)
            deviceKind = manifest["device_kind"] as? String ?: "another device"
            val files = manifest["files"] as? Map<*, *> ?: notABundle()
            for ((name, info) in files) {
                if (places[name]?.bytes != (info as? Map<*, *>)?.get("bytes")) {
                    throw BundleException("$file: $name is missing or cut short; copy the bundle again")
                }
            }
            plan = checked(tar, PLAN, files)
            script = readScript(checked(tar, SCRIPT, files), files)
        }
    }

    /** Position of a model. */
    fun model(sha256: String): Place = places.getValue(MODELS + sha256)

    /** The bytes of [place], in pieces. */
    fun chunks(place: Place): Sequence<ByteArray> =
        sequence {
            RandomAccessFile(file, "r").use { tar ->
                tar.seek(place.offset)
                var left = place.bytes
                while (left > 0) {
                    val chunk = ByteArray(minOf(left, CHUNK_BYTES.toLong()).toInt())
                    tar.readFully(chunk)
                    left -= chunk.size
                    yield(chunk)
                }
            }
        }

    private fun checkVersions(manifest: Map<String, Any?>) {
        val format = manifest["format"]
        if (format != FORMAT) {
            throw BundleException("$file is a bundle of format $format, not $FORMAT; make it again with bench bundle")
        }
        val protocol = manifest["protocol"]
        if (protocol != PROTOCOL_VERSION.toLong()) {
            throw BundleException(
                "$file is a bundle for protocol $protocol, and this is $PROTOCOL_VERSION; " +
                    "take bundle, agent and bench of the same version",
            )
        }
    }

    private fun checked(
        tar: RandomAccessFile,
        name: String,
        files: Map<*, *>,
    ): ByteArray {
        val content = text(tar, name)
        if (sha256(content) != (files[name] as? Map<*, *>)?.get("sha256")) {
            throw BundleException("$file: $name was changed; copy the bundle again")
        }
        return content
    }

    private fun readScript(
        text: ByteArray,
        files: Map<*, *>,
    ): Script {
        val script =
            try {
                Script.of(objectIn(text, SCRIPT))
            } catch (error: RuntimeException) {
                throw BundleException("$file: $SCRIPT is invalid (${error.message})")
            }
        val missing = script.batches.flatMap { it.slots }.firstOrNull { MODELS + it !in files }
        if (missing != null) {
            throw BundleException("$file: the model ${missing.take(12)} is missing; make the bundle again")
        }
        return script
    }

    private fun text(
        tar: RandomAccessFile,
        name: String,
    ): ByteArray {
        val place = places[name]?.takeIf { it.bytes <= MAX_TEXT_BYTES } ?: notABundle()
        tar.seek(place.offset)
        return ByteArray(place.bytes.toInt()).also(tar::readFully)
    }

    private fun objectIn(
        text: ByteArray,
        name: String,
    ): Map<String, Any?> =
        try {
            @Suppress("UNCHECKED_CAST") // the reader makes only string keys
            readJson(text) as? Map<String, Any?> ?: notABundle()
        } catch (error: JsonException) {
            throw BundleException("$file: $name is invalid (${error.message})")
        }

    private fun readPlaces(tar: RandomAccessFile): Map<String, Place> {
        val found = LinkedHashMap<String, Place>()
        val header = ByteArray(BLOCK)
        var offset = 0L
        while (offset + BLOCK <= tar.length()) {
            tar.seek(offset)
            tar.readFully(header)
            if (header.all { it == 0.toByte() }) return found
            val name = textOf(header, 0, 100)
            val bytes = textOf(header, 124, 12).trim().toLongOrNull(8) ?: notABundle()
            val isFile = header[156].toInt().toChar() in "0\u0000"
            val fits = offset + BLOCK + bytes <= tar.length()
            if (!isFile || !fits || name in found || found.size > MAX_FILES) notABundle()
            found[name] = Place(offset + BLOCK, bytes)
            offset += BLOCK + (bytes + BLOCK - 1) / BLOCK * BLOCK
        }
        notABundle()
    }

    private fun textOf(
        header: ByteArray,
        from: Int,
        size: Int,
    ): String = String(header, from, size, Charsets.US_ASCII).substringBefore('\u0000')

    private fun notABundle(): Nothing =
        throw BundleException("$file is not a bundle of bench, or cut short; copy it again")
}

internal fun sha256(bytes: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(bytes))
