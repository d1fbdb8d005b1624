package dev.blocktime.core.timing

import dev.blocktime.core.runtime.Call
import dev.blocktime.core.wire.Schedule
import dev.blocktime.core.wire.Tensor

private const val WARM_UP_ROUNDS = 100
private const val WARM_UP_VISITS = 200

/**
 * Has the timing loop compiled before the first run, so that no run begins in an interpreter. Two kinds of calls are
 * visited: with one alone a compiler would build it into the loop and throw the loop away at the first model.
 */
fun warmUpTiming() {
    val order = IntArray(WARM_UP_ROUNDS * WARM_UP_VISITS) { it % 2 }
    timeSchedule(listOf(EvenCall(), OddCall()), Schedule(WARM_UP_ROUNDS, WARM_UP_VISITS, order), warmup = 1) { true }
}

private class EvenCall : Call {
    override fun execute() = Unit

    override fun outputs(): List<Tensor> = emptyList()
}

private class OddCall : Call {
    override fun execute() = Unit

    override fun outputs(): List<Tensor> = emptyList()
}
