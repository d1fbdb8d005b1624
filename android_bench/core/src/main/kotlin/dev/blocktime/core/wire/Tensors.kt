package dev.blocktime.core.wire

import java.nio.ByteBuffer

/** Element types that the wire carries, with their names there. */
enum class DType(
    val wireName: String,
    val sizeBytes: Int,
) {
    FLOAT32("float32", 4),
    FLOAT16("float16", 2),
    FLOAT64("float64", 8),
    INT64("int64", 8),
    INT32("int32", 4),
    INT16("int16", 2),
    INT8("int8", 1),
    UINT8("uint8", 1),
    BOOL("bool", 1),
    ;

    companion object {
        /** The type called [name] on the wire, null where there is none. */
        fun named(name: String): DType? = entries.find { it.wireName == name }
    }
}

/** Element type and shape of one input or output. */
data class TensorSpec(
    val dtype: DType,
    val shape: List<Int>,
) {
    /** Size in bytes; [Long.MAX_VALUE] where it is larger than that, as with a hostile shape. */
    val sizeBytes: Long
        get() {
            if (0 in shape) return 0
            var bytes = dtype.sizeBytes.toLong()
            for (extent in shape) {
                if (bytes > Long.MAX_VALUE / extent) return Long.MAX_VALUE
                bytes *= extent
            }
            return bytes
        }

    override fun toString() = dtype.wireName + shape
}

/** A tensor's bytes: row-major and little-endian, from the buffer's position to its limit. */
class Tensor(
    val spec: TensorSpec,
    val data: ByteBuffer,
)
