package dev.blocktime.core.device

import dev.blocktime.core.wire.OpError
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest.dynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

private val READY = DeviceReading(uptimeNs = 1)

private fun battery(
    percent: Double,
    charging: Boolean?,
) = READY.copy(battery = Battery(percent, charging, celsius = null))

class ReadinessTest {
    @TestFactory
    fun `reasons not to measure`() =
        listOf(
            READY to null,
            READY.copy(debuggable = true) to Caveat.DEBUGGABLE_BUILD,
            READY.copy(debuggable = false, lowPowerMode = false, foreground = true) to null,
            READY.copy(lowPowerMode = true) to Caveat.POWER_SAVE,
            READY.copy(foreground = false) to Caveat.BACKGROUND,
            READY.copy(thermalState = ThermalState.FAIR) to null,
            READY.copy(thermalState = ThermalState.SERIOUS) to Caveat.THROTTLED,
            READY.copy(thermalState = ThermalState.CRITICAL) to Caveat.THROTTLED,
            READY.copy(thermalState = androidThermalState(0)) to null,
            READY.copy(thermalState = androidThermalState(1)) to Caveat.THROTTLED,
            READY.copy(thermalHeadroom = 0.72) to null,
            READY.copy(thermalHeadroom = 0.74) to Caveat.THROTTLED,
            battery(25.0, charging = false) to null,
            battery(24.9, charging = false) to Caveat.LOW_BATTERY,
            battery(24.9, charging = null) to Caveat.LOW_BATTERY,
            battery(25.0, charging = true) to null,
            battery(24.9, charging = true) to Caveat.LOW_BATTERY,
        ).map { (reading, reason) ->
            dynamicTest("${reading.battery ?: reading} is ${reason ?: "no reason"}") {
                assertEquals(listOfNotNull(reason), reasonsNotToMeasure(reading))
            }
        }

    @Test
    fun `what the user allowed is a caveat, not a refusal`() {
        val reading = READY.copy(debuggable = true, lowPowerMode = true)
        val error = assertThrows(OpError::class.java) { Readiness { setOf(Caveat.DEBUGGABLE_BUILD) }.require(reading) }
        assertEquals("not_ready", error.code)
        assertTrue("power saving is on" in error.message && "debuggable" !in error.message, error.message)
        val lenient = Readiness { Caveat.entries.toSet() }
        lenient.require(reading)
        assertEquals(listOf(Caveat.DEBUGGABLE_BUILD, Caveat.POWER_SAVE), lenient.caveats(reading))
        assertEquals(emptyList<Caveat>(), lenient.caveats(READY))
    }

    @Test
    fun `names of reasons`() {
        assertEquals(setOf(Caveat.THROTTLED, Caveat.LOW_BATTERY), Caveat.parse(" low_battery,throttled,"))
        assertEquals(emptySet<Caveat>(), Caveat.parse(""))
        assertThrows(IllegalArgumentException::class.java) { Caveat.parse("low-battery") }
    }
}
