package dev.blocktime.bench

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.util.Log
import android.view.View
import android.view.WindowManager
import android.widget.TextView
import dev.blocktime.core.ui.AgentState
import dev.blocktime.core.ui.Status
import dev.blocktime.core.ui.describe
import dev.blocktime.core.ui.describeReadiness
import java.io.File
import java.io.IOException
import kotlin.concurrent.thread
import kotlin.system.exitProcess

/** Conditions that the user allowed, passed by the orchestrator when it starts the app. */
private const val EXTRA_ALLOW = "allow"

/** A bundle to run: `am start -n dev.blocktime.bench/.MainActivity --es bundle FILE`. */
const val EXTRA_BUNDLE = "bundle"

private const val PICK_BUNDLE = 1
private const val SAVE_JOURNAL = 2
private const val ANY_TYPE = "*/*"

/** How often the device's state is refreshed while no client is connected; with a client, only events update the screen. */
private const val REDRAW_MS = 5_000L

/** Brightness of the screen while models are measured; it must stay on, and at 0 some phones switch it off. */
private const val DARKEST = 0.01f

/** Shows the agent and keeps the phone in a state to be measured: screen on, but dark. */
class MainActivity : Activity() {
    private val bench get() = (application as BenchApplication).bench
    private val redraw = Runnable { show(bench.status.now) }
    private var isSustained = false

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        findViewById<View>(R.id.stop).setOnClickListener { stop() }
        findViewById<View>(R.id.run_bundle).setOnClickListener { ask(Intent.ACTION_OPEN_DOCUMENT, PICK_BUNDLE) }
        findViewById<View>(R.id.save_journal).setOnClickListener { ask(Intent.ACTION_CREATE_DOCUMENT, SAVE_JOURNAL) }
        text(R.id.last_exit, lastExit(this))
        if (savedInstanceState == null) follow(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        follow(intent)
    }

    override fun onStart() {
        super.onStart()
        try {
            startForegroundService(Intent(this, AgentService::class.java))
        } catch (error: IllegalStateException) {
            bench.onRefusedStart(error)
        }
    }

    override fun onResume() {
        super.onResume()
        bench.observer = ::show
        bench.bundleObserver = ::showBundle
        show(bench.status.now)
    }

    override fun onPause() {
        bench.observer = null
        bench.bundleObserver = null
        window.decorView.removeCallbacks(redraw)
        super.onPause()
    }

    /** A tap on the icon keeps the allowed conditions; a start by the orchestrator replaces them. */
    private fun follow(intent: Intent) {
        intent.getStringExtra(EXTRA_BUNDLE)?.let { bench.runBundle(File(it)) }
        if (intent.hasCategory(Intent.CATEGORY_LAUNCHER)) askForNotifications()
        val allowed = intent.getStringArrayExtra(EXTRA_ALLOW) ?: return
        try {
            bench.control.allow(allowed.toList())
        } catch (error: IllegalArgumentException) {
            Log.w(LOG_TAG, "nothing allowed: ${error.message}")
        }
    }

    private fun ask(
        action: String,
        request: Int,
    ) {
        val asked = Intent(action).addCategory(Intent.CATEGORY_OPENABLE).setType(ANY_TYPE)
        startActivityForResult(asked.putExtra(Intent.EXTRA_TITLE, bench.bundles.journal?.name), request)
    }

    override fun onActivityResult(
        requestCode: Int,
        resultCode: Int,
        data: Intent?,
    ) {
        val place = data?.data?.takeIf { resultCode == RESULT_OK } ?: return
        thread(name = "blocktime-documents") {
            try {
                if (requestCode == PICK_BUNDLE) bench.runBundle(bench.bundles.keep(place)) else save(place)
            } catch (error: IOException) {
                runOnUiThread { showBundle(error.message.orEmpty()) }
            }
        }
    }

    private fun save(place: Uri) {
        val journal = bench.bundles.journal ?: return
        contentResolver.openOutputStream(place)?.use { sink -> journal.inputStream().use { it.copyTo(sink) } }
    }

    private fun showBundle(line: String) {
        text(R.id.bundle, line)
        val isSaved = bench.bundles.journal != null && !bench.bundles.isRunning
        findViewById<View>(R.id.save_journal).visibility = if (isSaved) View.VISIBLE else View.GONE
    }

    /** Only for people: the question pauses the activity, which would keep the orchestrator from measuring. */
    private fun askForNotifications() {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU) return
        val permission = Manifest.permission.POST_NOTIFICATIONS
        if (checkSelfPermission(permission) == PackageManager.PERMISSION_GRANTED) return
        requestPermissions(arrayOf(permission), 0)
    }

    private fun show(status: Status) {
        text(R.id.agent, describe(status.agent))
        text(R.id.token, getString(if (bench.control.token == null) R.string.no_token else R.string.token_given))
        text(R.id.work, describe(status.work, status.connected))
        text(R.id.results, status.results.joinToString("\n", transform = ::describe))
        text(R.id.refusals, status.refusals.joinToString("\n") { "${it.code}: ${it.message}" })
        window.decorView.keepScreenOn = status.agent is AgentState.Listening || bench.bundles.isRunning
        sustainPerformance(status.connected && bench.wantsSustained)
        dim(status.connected || bench.bundles.isRunning)
        window.decorView.removeCallbacks(redraw)
        if (status.connected) return
        text(R.id.readiness, describeReadiness(bench.probe.read(), bench.control.allowed))
        window.decorView.postDelayed(redraw, REDRAW_MS)
    }

    private fun sustainPerformance(wanted: Boolean) {
        if (wanted == isSustained) return
        isSustained = wanted
        window.setSustainedPerformanceMode(wanted)
        bench.probe.isSustained = wanted
    }

    /** A bright screen warms the phone, and its energy would count as the models'. */
    private fun dim(measuring: Boolean) {
        val brightness = if (measuring) DARKEST else WindowManager.LayoutParams.BRIGHTNESS_OVERRIDE_NONE
        if (window.attributes.screenBrightness == brightness) return
        window.attributes = window.attributes.apply { screenBrightness = brightness }
    }

    private fun stop() {
        stopService(Intent(this, AgentService::class.java))
        finishAndRemoveTask()
        // A journal is made to survive that; what runs could not be measured behind other apps anyway.
        if (bench.bundles.isRunning) exitProcess(0)
    }

    private fun text(
        id: Int,
        value: String,
    ) {
        val view = findViewById<TextView>(id)
        view.text = value
        view.visibility = if (value.isEmpty()) View.GONE else View.VISIBLE
    }
}
