package dev.blocktime.core.agent

import dev.blocktime.core.runtime.ExecutionFailed
import dev.blocktime.core.timing.AdaptiveWarmUp
import dev.blocktime.core.timing.Pace
import dev.blocktime.core.timing.medians
import dev.blocktime.core.timing.randomInputs
import dev.blocktime.core.timing.timeSchedule
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Payload
import dev.blocktime.core.wire.Request
import dev.blocktime.core.wire.Tensor
import dev.blocktime.core.wire.TensorSpec
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** What a greeted client can ask for. Each method answers one op or throws OpError. */
internal class Operations(
    private val config: AgentConfig,
    private val models: LoadedModels,
    private val clientIsThere: () -> Boolean,
) {
    /** Answers [request]; a run or load with heartbeats calls [beat]. */
    fun perform(
        request: Request,
        payload: Payload,
        beat: (Int) -> Unit,
    ): Reply =
        when (request) {
            is Request.Have -> Reply(mapOf("present" to config.store.has(request.sha256)))
            is Request.Put -> put(request, payload)
            is Request.Load -> beating(request.heartbeatS, { beat(0) }) { load(request) }
            is Request.Placement -> Reply(mapOf("placement" to null)).also { models.get(request.handle) }
            is Request.Unload -> Reply().also { models.close(request.handle) }
            is Request.Check -> check(request, payload)
            is Request.Run -> run(request, beat)
            is Request.State -> Reply(mapOf("state" to state()))
            is Request.Hello, is Request.Bye -> throw IllegalArgumentException("the session answers $request")
        }

    private fun put(
        request: Request.Put,
        payload: Payload,
    ): Reply {
        config.store.put(request.sha256, payload.sizeBytes, payload.chunks(), models.hashes)
        return Reply(mapOf("bytes" to payload.sizeBytes))
    }

    private fun load(request: Request.Load): Reply {
        val runtimes = config.runtimes
        val known = runtimes.keys.joinToString().ifEmpty { "none" }
        val runtime =
            runtimes[request.runtime]
                ?: throw OpError("unknown_runtime", "no runtime '${request.runtime}'; this agent has: $known")
        models.requirePlace()
        val model = runtime.load(config.store.file(request.sha256), request.options)
        return Reply(loadFields(models.add(LoadedModel(request.sha256, model)), model))
    }

    private fun check(
        request: Request.Check,
        payload: Payload,
    ): Reply {
        val model = models.get(request.handle).model
        if (request.inputs != model.inputs || request.inputs.sumOf { it.sizeBytes } != payload.sizeBytes) {
            val wanted = model.inputs.joinToString().ifEmpty { "no inputs" }
            throw OpError("bad_input", "the model takes $wanted; the inputs or their bytes differ from that")
        }
        val call = model.prepare(readTensors(request.inputs, payload))
        val outputs =
            failingAsOpError {
                call.execute()
                call.outputs()
            }
        return Reply(
            mapOf("outputs" to outputs.map { tensorFields(it.spec) }),
            *outputs.map { bytesOf(it) }.toTypedArray(),
        )
    }

    private fun run(
        request: Request.Run,
        beat: (Int) -> Unit,
    ): Reply {
        val visited = request.handles.map(models::get)
        val before = config.probe.read()
        config.readiness.require(before)
        val calls = visited.map { it.model.prepare(randomInputs(it.model.inputs)) }
        val everyNs = if (request.heartbeatS > 0) request.heartbeatS * 1_000_000_000L else Long.MAX_VALUE
        val heartbeat = RunHeartbeat(clientIsThere, everyNs, beat)
        val pace = Pace(request.paceUs * 1_000L)
        val warmUp = if (request.warmupMs > 0) AdaptiveWarmUp(calls.size, request.warmupMs * 1_000_000L) else null
        val samples =
            failingAsOpError {
                val warm = request.keepWarm == true
                timeSchedule(calls, request.schedule, request.warmup, everyNs, warmUp, pace, warm, heartbeat::goOn)
            }
        val after = config.probe.read()
        config.readiness.require(after)
        val medianNs = medians(request.schedule, samples)
        config.listener.onResult(
            RunResult(medianNs.map { (index, ns) -> ModelMedian(visited[index].shortName, ns) }, samples.size),
        )
        val warmth = request.keepWarm?.let { mapOf("keep_warm" to it) }.orEmpty()
        val payload = ByteBuffer.allocate(Long.SIZE_BYTES * samples.size)
        payload.asLongBuffer().put(samples)
        return Reply(
            mapOf(
                "rounds" to request.schedule.rounds,
                "visits" to request.schedule.visits,
                "state_before" to stateFields(before, config.readiness.caveats(before)) + warmth,
                "state_after" to stateFields(after, config.readiness.caveats(after)) + warmth,
            ) + listOfNotNull(warmUp?.let { "warmed" to warmedFields(it) }),
            payload.array(),
        )
    }

    private fun state(): Map<String, Any?> = config.probe.read().let { stateFields(it, config.readiness.caveats(it)) }

    private inline fun <T> failingAsOpError(action: () -> T): T =
        try {
            action()
        } catch (error: ExecutionFailed) {
            throw OpError("run_failed", "the runtime failed: ${error.message}")
        }
}

private fun readTensors(
    specs: List<TensorSpec>,
    payload: Payload,
): List<Tensor> {
    val all = ByteBuffer.allocateDirect(payload.sizeBytes.toInt())
    payload.chunks().forEach(all::put)
    all.flip()
    return specs.map { spec ->
        all.limit(all.position() + spec.sizeBytes.toInt())
        val data = all.slice().order(ByteOrder.LITTLE_ENDIAN)
        all.position(all.limit())
        Tensor(spec, data)
    }
}

private fun bytesOf(tensor: Tensor): ByteArray =
    ByteArray(tensor.data.remaining()).also {
        tensor.data.duplicate().get(it)
    }
