package dev.blocktime.bench

import android.content.ContentProvider
import android.content.ContentValues
import android.database.Cursor
import android.net.Uri
import android.os.Binder
import android.os.ParcelFileDescriptor
import android.os.Process
import android.util.Log
import java.io.FileNotFoundException
import java.io.IOException
import kotlin.concurrent.thread

private const val TOKEN = "token"

/**
 * Takes the token from adb: `content write --uri content://dev.blocktime.bench.control/token < token`.
 *
 * Guarded twice: the manifest asks for DUMP, which no app can be given, and the caller must be the shell itself. The
 * token goes through a pipe, so that it is on no command line and in no file.
 */
class ControlProvider : ContentProvider() {
    override fun onCreate() = true

    override fun openFile(
        uri: Uri,
        mode: String,
    ): ParcelFileDescriptor {
        if (Binder.getCallingUid() !in setOf(Process.SHELL_UID, Process.ROOT_UID)) {
            throw SecurityException("only adb's shell may write $uri")
        }
        if (uri.pathSegments != listOf(TOKEN)) throw FileNotFoundException("no $uri here, only /$TOKEN")
        if ('r' in mode) throw FileNotFoundException("$uri can be written, not read")
        val (source, sink) = ParcelFileDescriptor.createPipe()
        thread(name = "blocktime-token", isDaemon = true) { accept(source) }
        return sink
    }

    private fun accept(source: ParcelFileDescriptor) {
        val bench = (context?.applicationContext as BenchApplication).bench
        try {
            bench.control.acceptToken(ParcelFileDescriptor.AutoCloseInputStream(source))
            Log.i(LOG_TAG, "took a token")
        } catch (error: IOException) {
            Log.w(LOG_TAG, "refused a token: ${error.message}")
        }
    }

    override fun getType(uri: Uri): String? = null

    override fun query(
        uri: Uri,
        projection: Array<String>?,
        selection: String?,
        selectionArgs: Array<String>?,
        sortOrder: String?,
    ): Cursor? = null

    override fun insert(
        uri: Uri,
        values: ContentValues?,
    ): Uri? = null

    override fun update(
        uri: Uri,
        values: ContentValues?,
        selection: String?,
        selectionArgs: Array<String>?,
    ) = 0

    override fun delete(
        uri: Uri,
        selection: String?,
        selectionArgs: Array<String>?,
    ) = 0
}
