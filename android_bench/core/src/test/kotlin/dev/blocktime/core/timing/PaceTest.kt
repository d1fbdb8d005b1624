package dev.blocktime.core.timing

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class PaceTest {
    private var nowNs = 100L
    private val slept = mutableListOf<Long>()
    private val pace =
        Pace(30, { nowNs }, {
            slept += it
            nowNs += it
        })

    @Test
    fun `moments come at a steady rate, and a late one shifts the next`() {
        val begun = mutableListOf<Long>()
        for (callNs in listOf(10L, 10L, 70L, 10L, 0L)) {
            pace.await()
            begun += nowNs
            nowNs += callNs
        }
        assertEquals(listOf(100L, 130L, 160L, 230L, 260L), begun)
        assertEquals(listOf(20L, 20L, 20L), slept)
    }

    @Test
    fun `without a period nobody waits`() {
        val none = Pace(0, { error("the clock is read") }, { error("slept") })
        assertEquals(0L, none.await())
    }
}
