package dev.blocktime.bench

import android.app.Activity
import android.app.Application
import android.os.Bundle
import dev.blocktime.core.device.Foreground

/** Tells [foreground] when the app is in front, which is when its activity is resumed: else it has fewer cores, and slower. */
class ForegroundWatch(
    private val foreground: Foreground,
) : Application.ActivityLifecycleCallbacks {
    override fun onActivityResumed(activity: Activity) = foreground.onEntered()

    override fun onActivityPaused(activity: Activity) = foreground.onLeft()

    override fun onActivityCreated(
        activity: Activity,
        savedInstanceState: Bundle?,
    ) = Unit

    override fun onActivityStarted(activity: Activity) = Unit

    override fun onActivityStopped(activity: Activity) = Unit

    override fun onActivitySaveInstanceState(
        activity: Activity,
        outState: Bundle,
    ) = Unit

    override fun onActivityDestroyed(activity: Activity) = Unit
}
