package dev.blocktime.bench

import android.app.Activity
import android.app.Instrumentation
import android.content.Intent
import android.os.Bundle
import java.io.File

/** Names and codes of `am instrument -r`'s test reports, as device farms read them (the same as AndroidJUnitRunner's). */
private const val CLASS = "class"
private const val TEST = "test"
private const val STACK = "stack"
private const val STARTED = 1
private const val IN_PROGRESS = 2
private const val PASSED = 0
private const val FAILED = -2

/** Whoever gives it wants to know which tests there are. */
private const val LIST = "log"

/**
 * Runs a bundle as device farms run tests: `am instrument -w -r -e bundle FILE dev.blocktime.bench/.BundleInstrumentation`.
 * It reports itself as one test, with each step. The app is in front meanwhile, or the agent would not
 * measure.
 */
class BundleInstrumentation : Instrumentation() {
    private var bundle: String? = null
    private var isListing = false

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        bundle = arguments?.getString(EXTRA_BUNDLE)
        isListing = arguments?.getString(LIST) == "true"
        start()
    }

    override fun onStart() {
        super.onStart()
        val results = Bundle()
        tell(STARTED, "")
        val problem = if (isListing) null else run(results)
        tell(if (problem == null) PASSED else FAILED, problem.orEmpty())
        results.putString(REPORT_KEY_STREAMRESULT, "${problem ?: "OK"}\n")
        finish(Activity.RESULT_OK, results)
    }

    /** Null, or why the bundle did not get to its end. */
    private fun run(results: Bundle): String? {
        val path = bundle ?: return "no bundle: give -e $EXTRA_BUNDLE FILE"
        startActivitySync(Intent(targetContext, MainActivity::class.java).addFlags(Intent.FLAG_ACTIVITY_NEW_TASK))
        val bench = (targetContext.applicationContext as BenchApplication).bench
        val problem = bench.runBundleAndWait(File(path)) { tell(IN_PROGRESS, it) }
        results.putString("journal", bench.bundles.journal?.path)
        return problem
    }

    private fun tell(
        code: Int,
        line: String,
    ) {
        val status = Bundle()
        status.putString(REPORT_KEY_IDENTIFIER, javaClass.simpleName)
        status.putString(CLASS, javaClass.name)
        status.putString(TEST, "runBundle")
        status.putInt("numtests", 1)
        status.putInt("current", 1)
        status.putString(REPORT_KEY_STREAMRESULT, line)
        if (code == FAILED) status.putString(STACK, line)
        sendStatus(code, status)
    }
}
