package dev.blocktime.core.bundle

import dev.blocktime.core.wire.PROTOCOL_VERSION
import java.io.IOException
import java.util.Base64
import java.util.Locale
import kotlin.math.roundToLong

/** Errors of a load that say that the model will never run here. */
private val REFUSED = listOf("bad_model", "run_failed")

private const val NS_PER_S = 1e9

/** Runs the batches of a bundle that its journal does not have yet, as PROTOCOL.md, "Bundles", says. */
class BundlePlayer(
    private val bundle: BundleFile,
    private val journal: BundleJournal,
    private val progress: BundleProgress,
    private val agent: Loopback,
    private val tell: (String) -> Unit,
    private val sleep: (Double) -> Unit = { Thread.sleep((it * 1000).toLong()) },
) {
    private val script = bundle.script
    private val rules = script.rules

    /** Whether the device has ever told its thermal headroom: then a state without one does not mean that it is cool. */
    private var tellsHeadroom = false

    /** Runs what is left. Throws [BundleException], and IOException where the agent is gone or does not get ready. */
    fun run(token: String) {
        val hello = agent.demand(mapOf("op" to "hello", "protocol" to PROTOCOL_VERSION, "token" to token))
        val runtime = script.load["runtime"]
        if (runtime !in (hello["runtimes"] as Map<*, *>)) {
            throw BundleException("${bundle.file} is for ${bundle.deviceKind}: this agent has no runtime $runtime")
        }
        if (progress.isFinished) return
        if (progress.greeting != null && progress.greeting != hello) {
            throw BundleException("the journal was begun with another version of agent or system; give another")
        }
        if (journal.isEmpty) {
            val texts = mapOf("manifest" to String(bundle.manifestText), "plan" to String(bundle.plan))
            write(mapOf("kind" to "bundle", "bundle" to bundle.digest) + texts)
        }
        write(mapOf("kind" to "start", "hello" to hello))
        var ended = "passes"
        for ((index, batch) in script.batches.withIndex()) {
            ended = endingBefore(index) ?: ended
            if (ended != "passes") break
            while (progress.wants(index.toLong(), rules.attempts)) {
                tell(where(index))
                runBatch(index.toLong(), batch)
            }
        }
        write(mapOf("kind" to "done", "ended" to ended))
    }

    /** Why the pass that a batch is the first of is not made; null where it is, or was begun already. */
    private fun endingBefore(index: Int): String? {
        val passes = script.batches[index].passIndex
        val isFirst = index > 0 && passes != script.batches[index - 1].passIndex
        if (!isFirst || progress.begunTimes(index.toLong()) > 0) return null
        val models = script.batches.flatMap { it.slots.drop(2) }.toSet() - progress.failed
        return ending(script.stop, passes, progress.loads, models, progress.workedS)
    }

    private fun where(index: Int): String {
        val passes = script.batches.last().passIndex + 1
        val fewest = script.stop?.minPasses ?: passes
        val pass = "pass ${script.batches[index].passIndex + 1} of ${if (fewest < passes) "$fewest to " else ""}$passes"
        val minutes = (progress.workedS / 60).roundToLong()
        return "batch ${index + 1} of ${script.batches.size}, $pass, $minutes min so far"
    }

    private fun write(record: Map<String, Any?>) {
        journal.append(record)
        progress.add(record)
    }

    private fun runBatch(
        number: Long,
        batch: Script.Batch,
    ) {
        write(
            mapOf("kind" to "batch", "batch" to number, "pass_index" to batch.passIndex, "group" to batch.group),
        )
        val startNs = System.nanoTime()
        coolDown()
        val handles = sortedMapOf<Int, Any?>()
        val ratios = BatchRatios()
        for (slot in batch.loading) {
            if (batch.slots[slot] !in progress.failed) load(slot, batch)?.let { handles[slot] = it }
        }
        val hasReference = 0 in handles && 1 in handles
        val ended = if (hasReference) runRounds(batch, handles, ratios) else "the reference can't be loaded"
        for (handle in handles.values) agent.ask(mapOf("op" to "unload", "handle" to handle))
        val again = ended == "hot" && progress.begunTimes(number) < rules.attempts
        val logs = if (ended == "done") ratios.locations().mapKeys { (slot, _) -> batch.slots[slot] } else emptyMap()
        val worked = mapOf("worked_s" to (System.nanoTime() - startNs) / NS_PER_S, "logs" to logs)
        write(mapOf("kind" to "end", "batch" to number, "ended" to ended, "again" to again) + worked)
    }

    /** The handle; null where the model can't be loaded. */
    private fun load(
        slot: Int,
        batch: Script.Batch,
    ): Any? {
        val sha256 = batch.slots[slot]
        val deaths = progress.deathsOf(sha256)
        if (deaths >= rules.deaths) {
            fail(sha256, "the agent was ended $deaths times while loading it")
            return null
        }
        store(sha256)
        write(mapOf("kind" to "loading", "sha256" to sha256))
        val request = mapOf("op" to "load", "sha256" to sha256) + script.load + ("placement" to batch.placement)
        val answer = agent.ask(request)
        write(mapOf("kind" to "load", "slot" to slot, "sha256" to sha256, "reply" to answer.header))
        answer.error?.let { if (it["code"] in REFUSED) fail(sha256, "${it["code"]}: ${it["message"]}") }
        return answer.header["handle"]
    }

    private fun fail(
        sha256: String,
        reason: String,
    ) = write(mapOf("kind" to "failed", "sha256" to sha256, "reason" to reason))

    private fun store(sha256: String) {
        if (agent.demand(mapOf("op" to "have", "sha256" to sha256))["present"] == true) return
        val place = bundle.model(sha256)
        val request = mapOf("op" to "put", "sha256" to sha256)
        val error = agent.ask(request, place.bytes.toInt(), bundle.chunks(place)).error ?: return
        val model = "the model ${sha256.take(12)}"
        if (error["code"] == "hash_mismatch") {
            throw BundleException("${bundle.file}: $model is damaged; copy the bundle again")
        }
        throw IOException("$model can't be stored: ${error["message"]}")
    }

    /** Runs rounds of what was loaded until they are enough; how that ended: `done`, `hot`, or an error. */
    private fun runRounds(
        batch: Script.Batch,
        handles: Map<Int, Any?>,
        ratios: BatchRatios,
    ): String {
        val places = handles.keys.withIndex().associate { (index, slot) -> slot to index }
        for ((index, order) in batch.orders.withIndex()) {
            val rounds = order.map { visited -> visited.filter(handles::containsKey) }
            val schedule = rounds.map { visited -> visited.map(places::getValue) }
            val request = mapOf("op" to "run", "handles" to handles.values.toList(), "order" to schedule) + script.run
            val answer = askWhenReady(if (index == 0) request else request + ("warmup" to 0))
            answer.error?.let { return "${it["code"]}: ${it["message"]}" }
            val samples = Base64.getEncoder().encodeToString(answer.payload)
            write(mapOf("kind" to "run", "order" to rounds, "reply" to answer.header - "payload", "samples" to samples))
            if (isHot(answer.header["state_before"]) || isHot(answer.header["state_after"])) return "hot"
            ratios.add(rounds, answer.payload)
            tell("${ratios.rounds} rounds, noise ${String.format(Locale.ROOT, "%.2f", 100 * ratios.noise())} %")
            if (ratios.areEnough(script.stop)) break
        }
        return "done"
    }

    private fun askWhenReady(request: Map<String, Any?>): Answer {
        val deadlineNs = System.nanoTime() + (rules.waitS * NS_PER_S).toLong()
        while (true) {
            val answer = agent.ask(request)
            val error = answer.error
            if (error == null || error["code"] != "not_ready") return answer
            val message = error["message"]
            if (System.nanoTime() > deadlineNs) throw IOException("$message; run the bundle again, it goes on")
            tell("waiting, $message")
            sleep(rules.pollS)
        }
    }

    private fun coolDown() {
        val deadlineNs = System.nanoTime() + (rules.coolS * NS_PER_S).toLong()
        while (System.nanoTime() < deadlineNs) {
            val state = agent.demand(mapOf("op" to "state"))["state"] as Map<*, *>
            tellsHeadroom = tellsHeadroom || state["thermal_headroom"] != null
            val isKnown = state["thermal_headroom"] != null || !tellsHeadroom
            val isCool = state["thermal_state"] in listOf(null, "nominal") && headroomOf(state) < rules.coolHeadroom
            if (isKnown && isCool) return
            tell("letting the device cool before the next batch")
            sleep(rules.pollS)
        }
    }

    private fun isHot(state: Any?): Boolean {
        state as Map<*, *>
        val warm = state["thermal_state"] in listOf("serious", "critical")
        val ignored = "throttled" in (state["caveats"] as? List<*>).orEmpty()
        return (warm || headroomOf(state) >= rules.hotHeadroom) && !ignored
    }

    private fun headroomOf(state: Map<*, *>): Double = (state["thermal_headroom"] as? Number)?.toDouble() ?: 0.0
}
