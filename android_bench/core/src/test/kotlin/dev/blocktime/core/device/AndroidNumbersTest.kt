package dev.blocktime.core.device

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test

class AndroidNumbersTest {
    @Test
    fun `thermal statuses are the protocol's steps`() {
        val expected =
            listOf(
                ThermalState.NOMINAL,
                ThermalState.SERIOUS,
                ThermalState.SERIOUS,
                ThermalState.SERIOUS,
                ThermalState.CRITICAL,
                ThermalState.CRITICAL,
                ThermalState.CRITICAL,
            )
        assertEquals(expected, (0..6).map(::androidThermalState))
    }

    @Test
    fun `a battery on external power counts as charging`() {
        assertEquals(Battery(80.0, true, 31.4), androidBattery(80, 100, status = 4, temperature = 314))
        assertEquals(Battery(50.0, true, null), androidBattery(100, 200, status = 2, temperature = null))
        assertEquals(true, androidBattery(100, 100, status = 5, temperature = 0)?.charging)
        assertEquals(false, androidBattery(15, 100, status = 3, temperature = 0)?.charging)
        assertNull(androidBattery(15, 100, status = 1, temperature = 0)?.charging)
        assertNull(androidBattery(15, 100, status = null, temperature = 0)?.charging)
    }

    @Test
    fun `a battery that does not tell its charge is left out`() {
        assertNull(androidBattery(null, 100, 2, 300))
        assertNull(androidBattery(50, null, 2, 300))
        assertNull(androidBattery(-1, 100, 2, 300))
        assertNull(androidBattery(50, 0, 2, 300))
    }

    @Test
    fun `throttling counts once each time it begins`() {
        val counter = ThrottleCounter(initialStatus = 0)
        listOf(2, 3, 4, 3, 2, 0, 6, 1).forEach(counter::onStatus)
        assertEquals(2, counter.count)
    }

    @Test
    fun `a phone that is throttled from the start has not begun to be`() {
        val counter = ThrottleCounter(initialStatus = 3)
        counter.onStatus(4)
        assertEquals(0, counter.count)
        listOf(0, 1, 3).forEach(counter::onStatus)
        assertEquals(1, counter.count)
    }

    /** AOSP's PowerManager: within 500 ms of the last call to the thermal service there is NaN. */
    private class FakePower {
        var nowNs = 10_000_000_000L
        var headroom = 0.5f
        var calls = 0
        private var lastNs = 0L

        fun thermalHeadroom(): Float {
            calls++
            if (nowNs - lastNs < 500_000_000L) return Float.NaN
            lastNs = nowNs
            return headroom
        }
    }

    @Test
    fun `a headroom asked for twice in a row is the same`() {
        val power = FakePower()
        val headroom = ThermalHeadroom({ power.nowNs }, power::thermalHeadroom)
        assertEquals(0.5, headroom.now())
        power.headroom = 0.75f
        for (waitedMs in listOf(0, 1, 400, 598)) {
            power.nowNs += waitedMs * 1_000_000L
            assertEquals(0.5, headroom.now())
        }
        assertEquals(1, power.calls)
        power.nowNs += 1_000_000L
        assertEquals(0.75, headroom.now())
    }

    @Test
    fun `a phone that stops telling its headroom is asked again each time`() {
        val power = FakePower()
        val headroom = ThermalHeadroom({ power.nowNs }, power::thermalHeadroom)
        assertEquals(0.5, headroom.now())
        power.headroom = Float.NaN
        power.nowNs += 1_000_000_000L
        assertNull(headroom.now())
        power.headroom = 0.9f
        assertNull(headroom.now())
        power.nowNs += 500_000_000L
        assertEquals(0.9f.toDouble(), headroom.now())
    }

    @Test
    fun `a counter or a voltage that the battery does not have is not told`() {
        val told = androidBattery(50, 100, 3, 300, chargeUah = 2_100_500, voltage = 3_950)
        assertEquals(Battery(50.0, false, 30.0, 2_100_500, 3_950), told)
        for (none in listOf(Int.MIN_VALUE, 0, -1, null)) {
            assertNull(androidBattery(50, 100, 3, 300, chargeUah = none)?.chargeUah)
        }
        for (none in listOf(4, 0, -1, null)) assertNull(androidBattery(50, 100, 3, 300, voltage = none)?.voltageMv)
    }

    @Test
    fun `the peak of a process is its own line`() {
        assertEquals(1024, peakBytesOf("VmPeak:\t 9 kB\nVmHWM:\t 1 kB\nVmRSS:\t 1 kB\n"))
        assertNull(peakBytesOf("VmPeak:\t 9 kB\n"))
    }
}
