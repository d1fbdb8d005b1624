package dev.blocktime.bench

import android.app.Application
import android.net.Uri
import android.util.Log
import dev.blocktime.core.agent.AgentConfig
import dev.blocktime.core.bundle.BundleException
import dev.blocktime.core.bundle.runBundle
import java.io.File
import java.io.IOException

private const val JOURNAL = ".journal.jsonl"

/** Runs bundles, one at a time, instead of serving clients; progress is reported line by line. */
class BundleRuns(
    private val application: Application,
    private val config: (String) -> AgentConfig,
    private val tell: (String) -> Unit,
) {
    /** Folder of journals: adb and device farms can pull them from there. */
    private val folder: File
        get() = application.getExternalFilesDir(null) ?: application.filesDir

    /** Whether one is being run. */
    @Volatile var isRunning = false
        private set

    /** The journal of the newest run. */
    @Volatile var journal: File? = null
        private set

    /** Copies what a person picked to where it stays, since a run may go on in another process. Throws IOException. */
    fun keep(picked: Uri): File {
        val kept = File(application.noBackupFilesDir, "picked.bundle")
        val source = application.contentResolver.openInputStream(picked) ?: throw IOException("can't open $picked")
        source.use { input -> kept.outputStream().use { input.copyTo(it) } }
        return kept
    }

    /**
     * Runs a bundle in this thread, going on where its journal ends; null, or why it did not get to its end. [heard] is
     * told what goes on too.
     */
    fun run(
        bundle: File,
        heard: (String) -> Unit,
    ): String? {
        val say = { line: String ->
            Log.i(LOG_TAG, line)
            tell(line)
            heard(line)
        }
        isRunning = true
        val written = File(folder, bundle.name + JOURNAL)
        journal = written
        val problem =
            try {
                runBundle(bundle, written, config, say)
                null
            } catch (error: BundleException) {
                error.message
            } catch (error: IOException) {
                error.message ?: error.javaClass.name
            }
        isRunning = false
        say(problem ?: "the bundle is run; its journal is $written")
        return problem
    }
}
