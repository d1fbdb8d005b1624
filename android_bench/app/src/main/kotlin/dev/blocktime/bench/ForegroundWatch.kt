package dev.blocktime.bench

import android.app.Activity
import android.app.Application
import android.os.Bundle

/** Whether an activity of this app is resumed: a paused one runs with fewer cores and lower clocks. */
class ForegroundWatch(
    application: Application,
) : Application.ActivityLifecycleCallbacks {
    @Volatile var isForeground = false
        private set

    init {
        application.registerActivityLifecycleCallbacks(this)
    }

    override fun onActivityResumed(activity: Activity) {
        isForeground = true
    }

    override fun onActivityPaused(activity: Activity) {
        isForeground = false
    }

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
