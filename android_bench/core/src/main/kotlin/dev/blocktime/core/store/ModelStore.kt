package dev.blocktime.core.store

import dev.blocktime.core.wire.OpError
import java.io.File
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.io.FileOutputStream
import java.io.IOException
import java.security.MessageDigest
import java.util.UUID

/** Default size limit of a store. */
const val DEFAULT_STORE_BYTES = 4L shl 30

/** A half-received file older than this belongs to no living agent, even if several share the folder. */
private const val STALE_AFTER_MS = 24L * 3600 * 1000

private const val INCOMING = ".incoming-"
private const val BUFFER_BYTES = 1 shl 18

/** How Linux and Android word ENOSPC, EDQUOT and EFBIG; Java gives no number. */
private val NO_SPACE = listOf("No space left", "ENOSPC", "quota exceeded", "EDQUOT", "File too large", "EFBIG")

/**
 * Models as files of [root] named by their sha256, at most [maxBytes] in all; those loaded longest ago make room.
 *
 * A file is there whole or not at all. A file's modification time is a counter of uses that only rises, so that
 * changing the clock does not change the order. One thread at a time.
 */
class ModelStore(
    private val root: File,
    private val maxBytes: Long = DEFAULT_STORE_BYTES,
    private val open: (File) -> FileOutputStream = ::FileOutputStream,
) {
    init {
        if (!root.isDirectory && !root.mkdirs()) throw IOException("can't make the folder of models $root")
        val staleMs = System.currentTimeMillis() - STALE_AFTER_MS
        files().filter { it.name.startsWith(INCOMING) && it.lastModified() < staleMs }.forEach(File::delete)
    }

    /** Whether the model is there. */
    fun has(sha256: String): Boolean = File(root, sha256).isFile

    /**
     * Stores the [chunks], [sizeBytes] in all, evicting models that are not [inUse] to make room.
     *
     * Throws OpError `storage_full` or `hash_mismatch`; nothing is left behind then.
     */
    fun put(
        sha256: String,
        sizeBytes: Long,
        chunks: Sequence<ByteArray>,
        inUse: Set<String>,
    ) {
        makeRoom(sizeBytes, inUse + sha256)
        val incoming = File(root, INCOMING + UUID.randomUUID())
        try {
            val found = write(incoming, sizeBytes, chunks)
            if (found != sha256) {
                throw OpError("hash_mismatch", "the bytes have sha256 $found, not $sha256; send them again")
            }
            noteUse(incoming)
            if (!incoming.renameTo(File(root, sha256))) throw IOException("can't rename $incoming")
        } finally {
            incoming.delete()
        }
    }

    /**
     * The model's file, its content checked and its use noted.
     *
     * Throws OpError `unknown_model`, or `hash_mismatch` where the file was damaged (it is then removed).
     */
    fun file(sha256: String): File {
        val file = File(root, sha256)
        val found =
            try {
                digest(file)
            } catch (_: FileNotFoundException) {
                throw OpError("unknown_model", "no model ${sha256.take(12)} is stored; put it first")
            }
        if (found != sha256) {
            file.delete()
            throw OpError("hash_mismatch", "the stored model ${sha256.take(12)} was damaged; put it again")
        }
        noteUse(file)
        return file
    }

    private fun write(
        file: File,
        sizeBytes: Long,
        chunks: Sequence<ByteArray>,
    ): String {
        val digest = MessageDigest.getInstance("SHA-256")
        storing(sizeBytes) { open(file) }.use { output ->
            for (chunk in chunks) {
                digest.update(chunk)
                storing(sizeBytes) { output.write(chunk) }
            }
            storing(sizeBytes) { output.fd.sync() }
        }
        return hex(digest.digest())
    }

    /** Does [action], which writes; only its own failures can mean that the storage is full. */
    private inline fun <T> storing(
        sizeBytes: Long,
        action: () -> T,
    ): T =
        try {
            action()
        } catch (error: IOException) {
            if (NO_SPACE.none { it in error.message.orEmpty() }) throw error
            throw OpError("storage_full", "no space for $sizeBytes bytes on the device; free some and try again")
        }

    private fun makeRoom(
        sizeBytes: Long,
        keep: Set<String>,
    ) {
        val models = models().sortedBy { it.lastModified() }
        val keptBytes = models.filter { it.name in keep }.sumOf { it.length() }
        if (keptBytes + sizeBytes > maxBytes) {
            throw OpError(
                "storage_full",
                "$sizeBytes bytes do not fit: the store holds at most $maxBytes and loaded models take $keptBytes; " +
                    "unload models or start the agent with a larger store",
            )
        }
        var usedBytes = models.sumOf { it.length() }
        for (model in models.filterNot { it.name in keep }) {
            if (usedBytes + sizeBytes <= maxBytes) return
            usedBytes -= model.length()
            model.delete()
        }
    }

    private fun noteUse(file: File) {
        val latestMs = models().maxOfOrNull { it.lastModified() } ?: 0
        file.setLastModified(maxOf(System.currentTimeMillis(), latestMs + 1))
    }

    private fun files(): List<File> = root.listFiles().orEmpty().toList()

    private fun models(): List<File> = files().filterNot { it.name.startsWith(".") }
}

private fun digest(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val buffer = ByteArray(BUFFER_BYTES)
    FileInputStream(file).use { input ->
        while (true) {
            val count = input.read(buffer)
            if (count < 0) return hex(digest.digest())
            digest.update(buffer, 0, count)
        }
    }
}

internal fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }
