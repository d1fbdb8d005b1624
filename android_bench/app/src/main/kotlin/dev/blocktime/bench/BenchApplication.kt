package dev.blocktime.bench

import android.app.Application
import android.util.Log

/** Holds the one [Bench] of the process: activity, service and provider come and go. */
class BenchApplication : Application() {
    /** Created at first use: the provider may be called before [onCreate]. */
    val bench: Bench by lazy { Bench(this) }

    override fun onCreate() {
        super.onCreate()
        Log.i(LOG_TAG, "${bench.info.name} ${bench.info.version} ${lastExit(this)}".trim())
    }
}
