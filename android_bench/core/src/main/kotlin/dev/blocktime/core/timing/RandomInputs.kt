package dev.blocktime.core.timing

import dev.blocktime.core.wire.DType
import dev.blocktime.core.wire.Tensor
import dev.blocktime.core.wire.TensorSpec
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Random

private const val INPUT_SEED = 20240501L

/**
 * The same inputs for every model of one shape: standard normal floats, zeros for the other types.
 *
 * Zeros are valid as indices and masks. Floats are random: zeros and denormals have speeds of their own.
 */
fun randomInputs(specs: List<TensorSpec>): List<Tensor> {
    val random = Random(INPUT_SEED)
    return specs.map { spec ->
        require(spec.sizeBytes <= Int.MAX_VALUE) { "an input of ${spec.sizeBytes} bytes" }
        val data = ByteBuffer.allocateDirect(spec.sizeBytes.toInt()).order(ByteOrder.LITTLE_ENDIAN)
        while (data.hasRemaining() && spec.dtype in FLOATS) putNormal(data, spec.dtype, random)
        data.clear()
        Tensor(spec, data)
    }
}

private val FLOATS = setOf(DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)

private fun putNormal(
    data: ByteBuffer,
    dtype: DType,
    random: Random,
) {
    val value = random.nextGaussian()
    when (dtype) {
        DType.FLOAT64 -> data.putDouble(value)
        DType.FLOAT32 -> data.putFloat(value.toFloat())
        else -> data.putShort(halfBits(value.toFloat()))
    }
}

/**
 * Bits of the IEEE 754 half nearest to [value] (ties away from zero), which must be below 65504 in size; values that
 * would be denormal become zero.
 */
internal fun halfBits(value: Float): Short {
    val bits = value.toRawBits()
    val sign = bits ushr 16 and 0x8000
    // Rounding may carry into the exponent, which is then the right one.
    val rounded = (bits and 0x7fff_ffff) + 0x1000
    val exponent = (rounded ushr 23) - 127 + 15
    val half = if (exponent <= 0) 0 else exponent shl 10 or (rounded ushr 13 and 0x3ff)
    return (sign or half).toShort()
}
