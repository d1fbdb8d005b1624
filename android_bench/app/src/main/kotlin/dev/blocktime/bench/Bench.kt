package dev.blocktime.bench

import android.app.Application
import android.os.Build
import android.os.Handler
import android.os.Looper
import android.os.Process
import android.system.Os
import android.util.Log
import dev.blocktime.core.agent.AgentConfig
import dev.blocktime.core.agent.AgentInfo
import dev.blocktime.core.agent.AgentServer
import dev.blocktime.core.agent.PHONE_PORT
import dev.blocktime.core.device.Foreground
import dev.blocktime.core.device.Readiness
import dev.blocktime.core.store.ModelStore
import dev.blocktime.core.timing.warmUpTiming
import dev.blocktime.core.ui.AgentState
import dev.blocktime.core.ui.AgentStatus
import dev.blocktime.core.ui.Control
import dev.blocktime.core.ui.Status
import dev.blocktime.executorch.ExecutorchRuntime
import dev.blocktime.executorch.unsupportedProcessor
import java.io.File
import java.io.IOException
import java.util.concurrent.Callable
import java.util.concurrent.Executors

/** Tag of this app's lines in the system log: `adb logcat -s blocktime`. */
const val LOG_TAG = "blocktime"

/** The agent of this process with all that belongs to it. */
class Bench(
    private val application: Application,
) {
    val info = AgentInfo("blocktime-android", BuildConfig.AGENT_VERSION)
    val control = Control()
    private val foreground = Foreground()
    val probe = AndroidProbe(application, foreground)
    val status = AgentStatus(log = { Log.i(LOG_TAG, it) }, onChange = ::publish)

    /** Told of every change, on the main thread. */
    var observer: ((Status) -> Unit)? = null

    /** Whether the models that are loaded are to run with sustained performance. */
    @Volatile var wantsSustained = false
        private set

    private val main = Handler(Looper.getMainLooper())

    /** Opening and closing the port wait for files, sockets and a model call in progress: never on the main thread. */
    private val lifecycle = Executors.newSingleThreadExecutor()
    private var server: AgentServer? = null

    /** Bundles take the place of the port's clients. */
    val bundles = BundleRuns(application, ::configOf) { main.post { bundleObserver?.invoke(it) } }

    /** Receives a bundle's progress, on the main thread. */
    var bundleObserver: ((String) -> Unit)? = null

    init {
        application.registerActivityLifecycleCallbacks(ForegroundWatch(foreground))
        // Where the QNN backend looks for what it loads into a Snapdragon's NPU.
        Os.setenv("ADSP_LIBRARY_PATH", application.applicationInfo.nativeLibraryDir, true)
    }

    /** Opens the port unless it is open. */
    fun startAgent() = lifecycle.execute { if (server == null) openPort() }

    /** Closes the port and the connection; what is loaded is freed. */
    fun stopAgent() =
        lifecycle.execute {
            server?.stop()
            server = null
            status.onAgent(AgentState.Stopped)
        }

    /** Runs a bundle with the port closed; the port opens again behind it. */
    fun runBundle(bundle: File) {
        lifecycle.execute { measureAlone(bundle) {} }
    }

    /** Blocking variant; returns null, or why the bundle did not finish. [heard] receives progress. */
    fun runBundleAndWait(
        bundle: File,
        heard: (String) -> Unit,
    ): String? = lifecycle.submit(Callable { measureAlone(bundle, heard) }).get()

    private fun measureAlone(
        bundle: File,
        heard: (String) -> Unit,
    ): String? {
        server?.stop()
        server = null
        warmUpTiming()
        val problem = bundles.run(bundle, heard)
        openPort()
        return problem
    }

    /** Says on the screen that Android did not let the agent start, because the app has just left the screen. */
    fun onRefusedStart(error: IllegalStateException) {
        val reason = "the app left the screen too early; open it again (${error.message})"
        status.onAgent(AgentState.Failed(reason))
    }

    private fun openPort() {
        try {
            warmUpTiming()
            val opened = AgentServer(config())
            val port = opened.start()
            server = opened
            status.onAgent(AgentState.Listening(port))
        } catch (error: IOException) {
            status.onAgent(AgentState.Failed(error.message ?: error.javaClass.name))
        }
    }

    private fun configOf(token: String) = config(port = 0) { token }

    private fun config(
        port: Int = PHONE_PORT,
        token: () -> String? = control::token,
    ) = AgentConfig(
        info = info,
        token = token,
        port = port,
        store = ModelStore(File(application.noBackupFilesDir, "models")),
        runtimes = mapOf("executorch" to executorch()),
        probe = probe,
        readiness = Readiness(control::allowed),
        listener = status,
        onThread = ::raisePriority,
    )

    /** Throws IOException where the library has no code for this phone's processor, which is reported before any client connects. */
    private fun executorch(): ExecutorchRuntime {
        unsupportedProcessor(text("/proc/cpuinfo").orEmpty())?.let { throw IOException(it) }
        val runtime =
            ExecutorchRuntime(
                BuildConfig.EXECUTORCH_VERSION,
                probe.cores,
                probe.defaultThreads(),
                sustain = if (probe.canSustain) ::sustain else null,
                freeMemoryBytes = probe::freeMemoryBytes,
            )
        try {
            Log.i(LOG_TAG, "ExecuTorch's backends: ${runtime.describe().backends.joinToString()}")
        } catch (error: LinkageError) {
            val abis = Build.SUPPORTED_ABIS.joinToString()
            throw IOException("ExecuTorch has libraries for arm64-v8a and x86_64, this phone takes $abis", error)
        }
        return runtime
    }

    /** Has the window ask for sustained performance, or no longer. */
    private fun sustain(wanted: Boolean) {
        wantsSustained = wanted
        publish(status.now)
    }

    /** The priority of what draws frames, which the runtime's threads inherit from the one that loads models. */
    private fun raisePriority() {
        try {
            Process.setThreadPriority(Process.THREAD_PRIORITY_URGENT_DISPLAY)
        } catch (error: SecurityException) {
            Log.w(LOG_TAG, "models run at the default priority: ${error.message}")
        }
    }

    private fun publish(changed: Status) {
        main.post { observer?.invoke(changed) }
    }
}
