package dev.blocktime.bench

import android.app.ActivityManager
import android.app.ApplicationExitInfo
import android.content.Context
import android.os.Build

/** Why this app's process ended the last time, if that is worth a line; empty otherwise. */
fun lastExit(context: Context): String {
    if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) return ""
    val activities = context.getSystemService(ActivityManager::class.java)
    val reason =
        when (activities.getHistoricalProcessExitReasons(null, 0, 1).firstOrNull()?.reason) {
            ApplicationExitInfo.REASON_LOW_MEMORY -> "the system took its memory"
            ApplicationExitInfo.REASON_CRASH_NATIVE -> "the runtime crashed, probably on the model in hand"
            ApplicationExitInfo.REASON_CRASH -> "the app crashed; `adb logcat -b crash` shows where"
            ApplicationExitInfo.REASON_ANR -> "the app did not answer"
            else -> return ""
        }
    return "the agent ended the last time because $reason"
}
