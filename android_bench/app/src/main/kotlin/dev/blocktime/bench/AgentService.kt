package dev.blocktime.bench

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.IBinder

private const val CHANNEL = "agent"
private const val NOTIFICATION_ID = 1
private const val ACTION_STOP = "dev.blocktime.bench.STOP"

/**
 * Keeps the agent's port open, and the process alive, while the activity is rotated, covered or closed.
 *
 * Not sticky: a process that the system restarts has no token, so nobody could use it.
 */
class AgentService : Service() {
    private val bench get() = (application as BenchApplication).bench

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onStartCommand(
        intent: Intent?,
        flags: Int,
        startId: Int,
    ): Int {
        if (intent?.action == ACTION_STOP || !enterForeground()) stopSelf() else bench.startAgent()
        return START_NOT_STICKY
    }

    override fun onTaskRemoved(rootIntent: Intent?) = stopSelf()

    override fun onDestroy() = bench.stopAgent()

    /** False where the system does not allow it, because the app has just left the screen. */
    private fun enterForeground(): Boolean =
        try {
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE) {
                startForeground(NOTIFICATION_ID, notification(), ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE)
            } else {
                startForeground(NOTIFICATION_ID, notification())
            }
            true
        } catch (error: IllegalStateException) {
            bench.onRefusedStart(error)
            false
        }

    private fun notification(): Notification {
        val channel = NotificationChannel(CHANNEL, getString(R.string.channel), NotificationManager.IMPORTANCE_LOW)
        channel.setShowBadge(false)
        getSystemService(NotificationManager::class.java).createNotificationChannel(channel)
        val open = Intent(this, MainActivity::class.java)
        val stop = Intent(this, AgentService::class.java).setAction(ACTION_STOP)
        val onTap = PendingIntent.getActivity(this, 0, open, PendingIntent.FLAG_IMMUTABLE)
        val onStop = PendingIntent.getService(this, 0, stop, PendingIntent.FLAG_IMMUTABLE)
        return Notification
            .Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.ic_notification)
            .setContentTitle(getString(R.string.notification))
            .setContentIntent(onTap)
            .setOngoing(true)
            .addAction(Notification.Action.Builder(null, getString(R.string.stop), onStop).build())
            .build()
    }
}
