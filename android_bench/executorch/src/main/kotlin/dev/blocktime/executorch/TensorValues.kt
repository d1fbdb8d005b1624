package dev.blocktime.executorch

import dev.blocktime.core.wire.DType
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Tensor
import dev.blocktime.core.wire.TensorSpec
import org.pytorch.executorch.EValue
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.pytorch.executorch.DType as EtDType
import org.pytorch.executorch.Tensor as EtTensor

/** Types that ExecuTorch's Android API can carry. */
internal val CARRIED_TYPES = DType.entries.toSet() - setOf(DType.INT16, DType.BOOL)

/** [tensor], whose data must be direct, as an input; shares its memory. */
internal fun toInput(tensor: Tensor): EValue {
    val data = tensor.data.slice().order(ByteOrder.nativeOrder())
    val shape =
        tensor.spec.shape
            .map(Int::toLong)
            .toLongArray()
    return EValue.from(
        when (tensor.spec.dtype) {
            DType.FLOAT32 -> EtTensor.fromBlob(data.asFloatBuffer(), shape)
            DType.FLOAT16 -> EtTensor.fromBlob(data.asShortBuffer(), shape)
            DType.FLOAT64 -> EtTensor.fromBlob(data.asDoubleBuffer(), shape)
            DType.INT64 -> EtTensor.fromBlob(data.asLongBuffer(), shape)
            DType.INT32 -> EtTensor.fromBlob(data.asIntBuffer(), shape)
            DType.INT8 -> EtTensor.fromBlob(data, shape)
            DType.UINT8 -> EtTensor.fromBlobUnsigned(data, shape)
            DType.INT16, DType.BOOL -> throw notCarried(tensor.spec.dtype)
        },
    )
}

/** A copy of the output [value]. */
internal fun fromOutput(value: EValue): Tensor {
    val tensor = value.toTensor()
    val dtype = wireType(tensor.dtype())
    val spec = TensorSpec(dtype, tensor.shape().map(Long::toInt))
    val data = ByteBuffer.allocate(spec.sizeBytes.toInt()).order(ByteOrder.LITTLE_ENDIAN)
    when (dtype) {
        DType.FLOAT32 -> data.asFloatBuffer().put(tensor.dataAsFloatArray)
        DType.FLOAT16 -> data.asShortBuffer().put(tensor.dataAsShortArray)
        DType.FLOAT64 -> data.asDoubleBuffer().put(tensor.dataAsDoubleArray)
        DType.INT64 -> data.asLongBuffer().put(tensor.dataAsLongArray)
        DType.INT32 -> data.asIntBuffer().put(tensor.dataAsIntArray)
        DType.INT8 -> data.duplicate().put(tensor.dataAsByteArray)
        DType.UINT8 -> data.duplicate().put(tensor.dataAsUnsignedByteArray)
        DType.INT16, DType.BOOL -> throw notCarried(dtype)
    }
    return Tensor(spec, data)
}

private fun wireType(dtype: EtDType): DType =
    when (dtype) {
        EtDType.FLOAT -> DType.FLOAT32
        EtDType.HALF -> DType.FLOAT16
        EtDType.DOUBLE -> DType.FLOAT64
        EtDType.INT64 -> DType.INT64
        EtDType.INT32 -> DType.INT32
        EtDType.INT8 -> DType.INT8
        EtDType.UINT8 -> DType.UINT8
        else -> throw OpError("run_failed", "the model answers $dtype, which ExecuTorch's Android API does not carry")
    }

private fun notCarried(dtype: DType) =
    OpError("bad_input", "ExecuTorch's Android API carries no ${dtype.wireName}; export the model with another type")
