package dev.blocktime.core.timing

import dev.blocktime.core.wire.golden
import dev.blocktime.core.wire.readJson
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.TestFactory

/** Warming up by time ends where all agents end it. */
class AdaptiveWarmUpTest {
    @TestFactory
    fun `golden ramps`(): List<DynamicTest> {
        val cases = (readJson(golden("ramps.json"), maxDepth = 99) as Map<*, *>)["cases"] as List<*>
        assertTrue(cases.isNotEmpty())
        return cases.map { it as Map<*, *> }.map { case -> dynamicTest(case["name"] as String) { check(case) } }
    }

    private fun check(case: Map<*, *>) {
        val rounds =
            (case["rounds"] as List<*>).map { it as List<*> }.flatMap { (count, times) ->
                List((count as Long).toInt()) { LongArray((times as List<*>).size) { model -> times[model] as Long } }
            }
        val warmUp = AdaptiveWarmUp(rounds[0].size, case["bound_ns"] as Long)
        assertEquals(List(rounds.size - 1) { true } + false, rounds.map(warmUp::goesOn))
        assertEquals(listOf(case["ns"], rounds.size, case["steady"]), listOf(warmUp.ns, warmUp.rounds, warmUp.steady))
    }
}
