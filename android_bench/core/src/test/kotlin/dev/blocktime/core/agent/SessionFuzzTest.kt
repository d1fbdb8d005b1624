package dev.blocktime.core.agent

import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.golden
import dev.blocktime.core.wire.mangled
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.IOException
import java.util.Random

private const val SESSIONS = 400
private const val REQUESTS = 6
private const val SEED = 6L

/** Whole conversations, mangled. The agent may refuse or close; it must live, answer the next client and free all. */
class SessionFuzzTest {
    @TempDir lateinit var folder: File

    @Test
    fun `mangled conversations leave the agent as it was`() {
        val random = Random(SEED)
        val requests =
            listOf(
                "have",
                "put",
                "load",
                "unload",
                "check",
                "run",
                "state",
                "bye",
            ).map { golden("$it.request.bin") }
        val loads = loadRequests()
        TestAgent(folder, Timeouts(helloMs = 2_000, frameMs = 2_000)).use { agent ->
            agent.greeted().use { client -> listOf("a", "fail").forEach(client::put) }
            val codes = HashMap<String, Int>()
            repeat(SESSIONS) {
                agent.greeted().use { client ->
                    val sent =
                        List(REQUESTS) {
                            mangledSometimes(
                                (requests + loads)[random.nextInt(requests.size + loads.size)],
                                random,
                            )
                        }
                    converse(client, sent).forEach { code -> codes.merge(code, 1, Int::plus) }
                }
            }
            agent.greeted().use { it.ask("state") }
            assertTrue(
                codes.keys.containsAll(listOf("done", "bad_header", "bad_request", "truncated", "unknown_handle")),
                "$codes",
            )
            assertTrue("internal" !in codes, "$codes")
            assertTrue(folder.list()!!.none { it.startsWith(".incoming") })
        }
    }

    /** Requests that load the two stored models, run and check them. */
    private fun loadRequests(): List<ByteArray> =
        listOf("a", "fail").map { text ->
            encodeHeader(
                mapOf("id" to 3, "op" to "load", "sha256" to sha256(text.toByteArray()), "runtime" to "doubler"),
            )
        } +
            encodeHeader(
                mapOf("id" to 4, "op" to "run", "handles" to listOf(1), "order" to listOf(listOf(0, 0)), "warmup" to 1),
            )

    private fun mangledSometimes(
        request: ByteArray,
        random: Random,
    ) = if (random.nextInt(3) == 0) mangled(request, random) else request

    /** Sends all and says how each was answered, until the agent closes. */
    private fun converse(
        client: TestClient,
        requests: List<ByteArray>,
    ): List<String> {
        try {
            requests.forEach(client::send)
            client.socket.shutdownOutput()
        } catch (_: IOException) {
            // The agent has refused a frame and closed; its answer may still be there to be read.
        }
        val codes = mutableListOf<String>()
        try {
            while (true) {
                val header = client.receive()?.first ?: break
                codes += if ("error" in header) errorCode(header) else "done"
            }
        } catch (_: IOException) {
            codes += "reset"
        }
        return codes
    }
}
