package dev.blocktime.core.store

import dev.blocktime.core.agent.sha256
import dev.blocktime.core.wire.OpError
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.FileOutputStream
import java.io.IOException

class ModelStoreTest {
    @TempDir lateinit var root: File

    private fun ModelStore.add(
        text: String,
        inUse: Set<String> = emptySet(),
    ): String {
        val bytes = text.toByteArray()
        val sha256 = sha256(bytes)
        put(sha256, bytes.size.toLong(), sequenceOf(bytes.copyOf(1), bytes.copyOfRange(1, bytes.size)), inUse)
        return sha256
    }

    private fun code(action: () -> Unit): String = assertThrows(OpError::class.java) { action() }.code

    private fun names() = root.list()!!.toSet()

    @Test
    fun `stored bytes come back, also to the next agent`() {
        val sha256 = ModelStore(root).add("model")
        assertEquals("model", ModelStore(root).file(sha256).readText())
        assertEquals(setOf(sha256), names())
    }

    @Test
    fun `the model loaded longest ago makes room, never one in use`() {
        val store = ModelStore(root, maxBytes = 12)
        val (first, second, third) = listOf("aaaa", "bbbb", "cccc").map { store.add(it) }
        store.file(first)
        val fourth = store.add("dddd")
        assertEquals(setOf(first, third, fourth), names())
        val fifth = store.add("eeeeeeee", inUse = setOf(third))
        assertEquals(setOf(third, fifth), names())
        assertFalse(store.has(second))
    }

    @Test
    fun `a clock that was set back does not change the order`() {
        val store = ModelStore(root, maxBytes = 8)
        val old = store.add("aaaa")
        assertTrue(File(root, old).setLastModified(System.currentTimeMillis() + 3_600_000))
        val young = store.add("bbbb")
        store.add("cccc")
        assertFalse(store.has(old))
        assertTrue(store.has(young))
    }

    @Test
    fun `what does not fit is refused and evicts nothing`() {
        val store = ModelStore(root, maxBytes = 8)
        val used = store.add("aaaa")
        val other = store.add("bbb")
        assertEquals("storage_full", code { store.add("ccccc", inUse = setOf(used)) })
        assertEquals(setOf(used, other), names())
    }

    @Test
    fun `a full disk leaves nothing behind`() {
        for (words in listOf("No space left on device", "write failed: ENOSPC (No space left on device)", "EFBIG")) {
            val store = ModelStore(root, open = { file -> FullDisk(file, words) })
            assertEquals("storage_full", code { store.add("model") })
            assertEquals(emptySet<String>(), names())
        }
        val store = ModelStore(root, open = { file -> FullDisk(file, "Input/output error") })
        assertThrows(IOException::class.java) { store.add("model") }
        assertEquals(emptySet<String>(), names())
    }

    @Test
    fun `a wrong hash, or a stream that breaks off, leaves nothing behind`() {
        val store = ModelStore(root)
        val sha256 = sha256("other".toByteArray())
        assertEquals("hash_mismatch", code { store.put(sha256, 5, sequenceOf("model".toByteArray()), emptySet()) })
        val broken = sequence<ByteArray> { throw IllegalStateException("gone") }
        assertThrows(IllegalStateException::class.java) { store.put(sha256, 5, broken, emptySet()) }
        assertEquals(emptySet<String>(), names())
    }

    @Test
    fun `a damaged model is removed and an unknown one named`() {
        val store = ModelStore(root)
        val sha256 = store.add("model")
        File(root, sha256).writeText("modem")
        assertEquals("hash_mismatch", code { store.file(sha256) })
        assertEquals("unknown_model", code { store.file(sha256) })
    }

    @Test
    fun `half-received files are dropped when they are old`() {
        val old = File(root, ".incoming-1").apply { writeText("x") }
        val young = File(root, ".incoming-2").apply { writeText("x") }
        assertTrue(old.setLastModified(System.currentTimeMillis() - 25L * 3600 * 1000))
        ModelStore(root)
        assertEquals(setOf(young.name), names())
    }

    private class FullDisk(
        file: File,
        private val words: String,
    ) : FileOutputStream(file) {
        override fun write(bytes: ByteArray) {
            super.write(bytes.copyOf(1))
            throw IOException(words)
        }
    }
}
