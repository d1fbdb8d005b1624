package dev.blocktime.bench

import android.app.Activity
import android.app.Instrumentation
import android.content.Intent
import android.os.Bundle
import java.io.File

/**
 * Runs a bundle as device farms run tests: `am instrument -w -e bundle FILE dev.blocktime.bench/.BundleInstrumentation`.
 * The app is in front meanwhile, or the agent would not measure.
 */
class BundleInstrumentation : Instrumentation() {
    private var bundle: String? = null

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        bundle = arguments?.getString(EXTRA_BUNDLE)
        start()
    }

    override fun onStart() {
        super.onStart()
        val path = bundle ?: return leave("no bundle: give -e $EXTRA_BUNDLE FILE", null)
        startActivitySync(Intent(targetContext, MainActivity::class.java).addFlags(Intent.FLAG_ACTIVITY_NEW_TASK))
        val bench = (targetContext.applicationContext as BenchApplication).bench
        leave(bench.runBundleAndWait(File(path)), bench.bundles.journal)
    }

    private fun leave(
        problem: String?,
        journal: File?,
    ) {
        val results = Bundle()
        results.putString(REPORT_KEY_STREAMRESULT, "${problem ?: "OK"}\n")
        results.putString("journal", journal?.path)
        finish(if (problem == null) Activity.RESULT_OK else Activity.RESULT_CANCELED, results)
    }
}
