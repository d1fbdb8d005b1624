package dev.blocktime.executorch

import dev.blocktime.core.runtime.Delegate
import dev.blocktime.core.wire.DType
import dev.blocktime.core.wire.TensorSpec
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel

// Field numbers of executorch/schema/program.fbs, whose fields are never renumbered.
private const val PROGRAM_EXECUTION_PLAN = 1
private const val PLAN_NAME = 0
private const val PLAN_VALUES = 2
private const val PLAN_INPUTS = 3
private const val PLAN_OUTPUTS = 4
private const val PLAN_DELEGATES = 7
private const val PLAN_NON_CONST_BUFFER_SIZES = 8
private const val DELEGATE_ID = 0
private const val VALUE_KIND = 0
private const val VALUE = 1
private const val KIND_TENSOR = 5
private const val TENSOR_SCALAR_TYPE = 0
private const val TENSOR_SIZES = 2

private const val MAGIC_AT = 4
private const val MAX_RANK = 8
private const val MAX_TENSORS = 64

/** executorch/schema/scalar_type.fbs */
private val DTYPES =
    mapOf(
        0 to DType.UINT8,
        1 to DType.INT8,
        2 to DType.INT16,
        3 to DType.INT32,
        4 to DType.INT64,
        5 to DType.FLOAT16,
        6 to DType.FLOAT32,
        7 to DType.FLOAT64,
        11 to DType.BOOL,
    )

/** Facts about a method that a .pte contains and ExecuTorch's Android API does not expose. [plannedBytes]: memory for its activations. */
internal data class PteSummary(
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
    val delegates: List<Delegate>,
    val plannedBytes: Long,
)

/** Summary of [method] in the .pte [file]; throws [PteException] where it is not a readable .pte. */
internal fun readPte(
    file: File,
    method: String,
): PteSummary =
    RandomAccessFile(file, "r").use { opened ->
        val data = opened.channel.map(FileChannel.MapMode.READ_ONLY, 0, opened.length())
        try {
            summarise(data.order(ByteOrder.LITTLE_ENDIAN), method)
        } catch (_: IndexOutOfBoundsException) {
            throw PteException("no readable ExecuTorch program (an offset leads outside of the file)")
        }
    }

private fun summarise(
    data: ByteBuffer,
    method: String,
): PteSummary {
    if (data.get(MAGIC_AT) != 'E'.code.toByte() || data.get(MAGIC_AT + 1) != 'T'.code.toByte()) {
        throw PteException("no ExecuTorch program")
    }
    val plan =
        FlatTable(data, data.getInt(0)).tables(PROGRAM_EXECUTION_PLAN).find { it.string(PLAN_NAME) == method }
            ?: throw PteException("no method '$method'")
    val values = plan.tables(PLAN_VALUES)
    return PteSummary(
        plan.tensors(PLAN_INPUTS, values),
        plan.tensors(PLAN_OUTPUTS, values),
        plan.delegates(),
        plan.plannedBytes(),
    )
}

private fun FlatTable.tensors(
    field: Int,
    values: List<FlatTable>,
): List<TensorSpec> {
    val indices = ints(field)
    if (indices.size > MAX_TENSORS) throw PteException("${indices.size} inputs or outputs; an agent takes $MAX_TENSORS")
    return indices.map { tensorSpec(values[it]) }
}

private fun tensorSpec(value: FlatTable): TensorSpec {
    val tensor = value.table(VALUE)
    val isTensor = value.byte(VALUE_KIND) == KIND_TENSOR
    if (!isTensor || tensor == null) throw PteException("an input or output is not a tensor")
    val type = tensor.byte(TENSOR_SCALAR_TYPE)
    val shape = tensor.ints(TENSOR_SIZES)
    if (shape.size > MAX_RANK || shape.any { it < 0 }) throw PteException("a tensor of shape $shape")
    return TensorSpec(DTYPES[type] ?: throw PteException("a tensor of ExecuTorch's type $type"), shape)
}

private fun FlatTable.delegates(): List<Delegate> =
    tables(PLAN_DELEGATES)
        .groupingBy { it.string(DELEGATE_ID) }
        .eachCount()
        .toSortedMap()
        .map { (backend, count) -> Delegate(backend, count) }

private fun FlatTable.plannedBytes(): Long {
    val sizes = longs(PLAN_NON_CONST_BUFFER_SIZES)
    if (sizes.any { it < 0 }) throw PteException("a negative buffer size")
    // A hostile sum may overflow; as a double it only loses digits.
    return sizes.sumOf(Long::toDouble).toLong()
}
