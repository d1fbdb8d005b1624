package dev.blocktime.core.device

import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class ForegroundTest {
    private val foreground = Foreground()

    @Test
    fun `an app that was never in front is not`() {
        assertFalse(foreground.sinceLastAsked())
        foreground.onEntered()
        assertTrue(foreground.sinceLastAsked())
        assertTrue(foreground.sinceLastAsked())
    }

    @Test
    fun `an app that left and came back is told once`() {
        foreground.onEntered()
        foreground.sinceLastAsked()
        foreground.onLeft()
        foreground.onEntered()
        assertFalse(foreground.sinceLastAsked())
        assertTrue(foreground.sinceLastAsked())
    }

    @Test
    fun `an app that stays away is told every time`() {
        foreground.onEntered()
        foreground.onLeft()
        assertFalse(foreground.sinceLastAsked())
        assertFalse(foreground.sinceLastAsked())
    }
}
