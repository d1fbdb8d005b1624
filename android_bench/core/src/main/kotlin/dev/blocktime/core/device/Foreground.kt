package dev.blocktime.core.device

/** Whether an app has been in front: not only now, but ever since it was last asked, so also in the middle of a run. */
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
