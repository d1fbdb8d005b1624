package dev.blocktime.core.device

import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class PresenceTest {
    private val presence = Presence()

    @Test
    fun `an app that was never in front is not`() {
        assertFalse(presence.sinceLastAsked())
        presence.onEntered()
        assertTrue(presence.sinceLastAsked())
        assertTrue(presence.sinceLastAsked())
    }

    @Test
    fun `an app that left and came back is told once`() {
        presence.onEntered()
        presence.sinceLastAsked()
        presence.onLeft()
        presence.onEntered()
        assertFalse(presence.sinceLastAsked())
        assertTrue(presence.sinceLastAsked())
    }

    @Test
    fun `an app that stays away is told every time`() {
        presence.onEntered()
        presence.onLeft()
        assertFalse(presence.sinceLastAsked())
        assertFalse(presence.sinceLastAsked())
    }
}
