package dev.blocktime.core.bundle

import dev.blocktime.core.agent.AgentConfig
import dev.blocktime.core.agent.AgentServer
import dev.blocktime.core.store.hex
import java.io.File
import java.security.SecureRandom

/** Default path of a bundle's journal. */
fun journalBeside(bundle: File): File = File(bundle.path + ".journal.jsonl")

/**
 * Runs a bundle with an agent of its own, going on where the journal ends. [config] makes the agent of a token, on any
 * free port; [tell] receives progress.
 *
 * Throws [BundleException] for a bundle or journal that can't be used, and IOException where the device does not get
 * ready, or its storage is full.
 */
fun runBundle(
    bundle: File,
    journal: File,
    config: (String) -> AgentConfig,
    tell: (String) -> Unit,
) {
    val opened = BundleFile(bundle)
    val progress = BundleProgress()
    BundleJournal(journal, opened.digest, progress::add).use { written ->
        val token = hex(ByteArray(16).also(SecureRandom()::nextBytes))
        val server = AgentServer(config(token))
        val port = server.start()
        try {
            Loopback(port).use { BundlePlayer(opened, written, progress, it, tell).run(token) }
        } finally {
            server.stop()
        }
    }
}
