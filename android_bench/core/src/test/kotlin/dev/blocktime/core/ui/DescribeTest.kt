package dev.blocktime.core.ui

import dev.blocktime.core.agent.ModelMedian
import dev.blocktime.core.agent.RunResult
import dev.blocktime.core.agent.Work
import dev.blocktime.core.device.Battery
import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.DeviceReading
import dev.blocktime.core.device.ThermalState
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Locale

class DescribeTest {
    @Test
    fun `tells what the agent does`() {
        assertEquals("waiting for a client", describe(null, connected = false))
        assertEquals("waiting for a request", describe(null, connected = true))
        assertEquals("load abc, then runs", describe(Work("load", "abc"), connected = true))
        assertEquals("state", describe(Work("state", ""), connected = true))
    }

    @Test
    fun `tells why the port is not open`() {
        assertEquals("not listening: port 47613 is in use", describe(AgentState.Failed("port 47613 is in use")))
    }

    @Test
    fun `tells the range of medians, with a point in every language`() {
        val former = Locale.getDefault()
        Locale.setDefault(Locale.GERMANY)
        try {
            val medians = listOf(ModelMedian("aaa", 1_234_567), ModelMedian("bbb", 212_000))
            assertEquals("2 models, 16 visits, 0.212 to 1.235 ms", describe(RunResult(medians, 16)))
        } finally {
            Locale.setDefault(former)
        }
    }

    @Test
    fun `tells what keeps the device from being measured`() {
        val hot = DeviceReading(uptimeNs = 0, thermalState = ThermalState.SERIOUS, battery = Battery(10.0, false, null))
        assertEquals("ready", describeReadiness(DeviceReading(uptimeNs = 0), emptySet()))
        val told = describeReadiness(hot, setOf(Caveat.LOW_BATTERY))
        assertTrue(told.startsWith("not ready: ") && Caveat.THROTTLED.remedy in told, told)
        assertTrue(Caveat.LOW_BATTERY.remedy !in told, told)
        assertEquals(
            "ready, ignoring low_battery, throttled, which every result will say",
            describeReadiness(hot, setOf(Caveat.LOW_BATTERY, Caveat.THROTTLED)),
        )
    }
}
