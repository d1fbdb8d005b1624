package dev.blocktime.jvm

import java.io.OutputStream
import kotlin.concurrent.thread

/**
 * Besides the end of stdin, which children that a dead parent left behind may hold open. Rare, so that it does not wake
 * up inside a timed call more than a few times an hour.
 */
private const val PARENT_POLL_MS = 10_000L

/** Ends this process when its stdin closes or its parent is gone, so that no agent is orphaned. */
internal fun watchParent() {
    val parent = parentPid()
    thread(name = "blocktime-stdin", isDaemon = true) {
        System.`in`.copyTo(OutputStream.nullOutputStream())
        Runtime.getRuntime().halt(0)
    }
    thread(name = "blocktime-parent", isDaemon = true) {
        while (parentPid() == parent) Thread.sleep(PARENT_POLL_MS)
        Runtime.getRuntime().halt(0)
    }
}

private fun parentPid(): Long? =
    ProcessHandle
        .current()
        .parent()
        .map(ProcessHandle::pid)
        .orElse(null)
