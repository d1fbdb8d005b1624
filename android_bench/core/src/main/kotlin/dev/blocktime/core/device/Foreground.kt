package dev.blocktime.core.device

/** Whether the app has been in front continuously since the last call, so also during a run. */
class Foreground {
    private var isInFront = false
    private var hasLeft = false

    /** The app has come to the front. */
    @Synchronized
    fun onEntered() {
        isInFront = true
    }

    /** The app has left the front. */
    @Synchronized
    fun onLeft() {
        isInFront = false
        hasLeft = true
    }

    /** Whether the app is in front and has not left since the last call. */
    @Synchronized
    fun sinceLastAsked(): Boolean {
        val stayed = isInFront && !hasLeft
        hasLeft = false
        return stayed
    }
}
