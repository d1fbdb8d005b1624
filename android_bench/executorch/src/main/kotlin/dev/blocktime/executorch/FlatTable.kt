package dev.blocktime.executorch

import java.nio.ByteBuffer

/** Real programs have no longer lists: those would only cost time. */
private const val MAX_LIST = 100_000

private const val MAX_STRING_BYTES = 256

/** A file that is not a readable ExecuTorch program; [message] says why. */
internal class PteException(
    override val message: String,
) : Exception(message)

/**
 * A flatbuffer table at [position] of [data], which is little-endian. Fields are counted from 0.
 *
 * Every access is checked by the buffer: offsets that lead outside throw IndexOutOfBoundsException.
 */
internal class FlatTable(
    private val data: ByteBuffer,
    private val position: Int,
) {
    /** The integer of one byte in [field]; 0, the default of all such fields here, where it is absent. */
    fun byte(field: Int): Int = find(field)?.let { data.get(it).toInt() } ?: 0

    fun string(field: Int): String {
        val (start, length) = vector(field) ?: return ""
        val bytes = ByteArray(minOf(length, MAX_STRING_BYTES)) { data.get(start + it) }
        return String(bytes, Charsets.UTF_8)
    }

    fun table(field: Int): FlatTable? = find(field)?.let { FlatTable(data, follow(it)) }

    fun tables(field: Int): List<FlatTable> = elements(field, Int.SIZE_BYTES) { FlatTable(data, follow(it)) }

    fun ints(field: Int): List<Int> = elements(field, Int.SIZE_BYTES, data::getInt)

    fun longs(field: Int): List<Long> = elements(field, Long.SIZE_BYTES, data::getLong)

    private fun <T> elements(
        field: Int,
        sizeBytes: Int,
        read: (Int) -> T,
    ): List<T> {
        val (start, length) = vector(field) ?: return emptyList()
        if (length > MAX_LIST) throw PteException("a list of $length elements")
        return List(length) { read(start + sizeBytes * it) }
    }

    /** Position of the first element, and the number of elements. */
    private fun vector(field: Int): Pair<Int, Int>? {
        val start = follow(find(field) ?: return null)
        val length = data.getInt(start)
        if (length < 0) throw PteException("a list of negative length")
        return start + Int.SIZE_BYTES to length
    }

    /** Position of the value of [field]; null where it is absent. */
    private fun find(field: Int): Int? {
        val vtable = position - data.getInt(position)
        val entry = 2 * Short.SIZE_BYTES + field * Short.SIZE_BYTES
        if (entry >= unsignedShort(vtable)) return null
        return unsignedShort(vtable + entry).takeIf { it != 0 }?.let { position + it }
    }

    private fun follow(at: Int): Int = at + data.getInt(at)

    private fun unsignedShort(at: Int): Int = data.getShort(at).toInt() and 0xffff
}
