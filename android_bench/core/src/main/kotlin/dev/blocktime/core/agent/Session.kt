package dev.blocktime.core.agent

import dev.blocktime.core.wire.Connection
import dev.blocktime.core.wire.ConnectionLost
import dev.blocktime.core.wire.Frame
import dev.blocktime.core.wire.FrameException
import dev.blocktime.core.wire.OPS
import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.Payload
import dev.blocktime.core.wire.Request
import dev.blocktime.core.wire.SchemaException
import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.idOf
import dev.blocktime.core.wire.readFrame
import dev.blocktime.core.wire.readRequest

/** One client's connection after its hello: reads requests, checks and answers them, and frees all that was loaded at the end. */
internal class Session(
    private val config: AgentConfig,
    private val connection: Connection,
) {
    private val models = LoadedModels()
    private val operations = Operations(config, models, connection::isClientThere)
    private var greeted = false
    private var leaving = false

    /** Answers [hello], then requests until the client leaves, vanishes or breaks the protocol. Then all is freed. */
    fun serve(hello: Frame) {
        try {
            answer(hello)
            while (!leaving) {
                connection.awaitInput()
                answer(readFrame(connection) ?: break)
            }
        } catch (error: FrameException) {
            replyLast(null, error.code, error.message)
        } catch (_: ConnectionLost) {
            return
        } finally {
            models.closeAll()
            connection.finish()
            if (greeted) config.listener.onClientGone()
        }
    }

    private fun answer(frame: Frame) {
        val id = idOf(frame.header)
        val reply =
            try {
                perform(id, frame)
            } catch (error: OpError) {
                config.listener.onRefusal(error.code, error.message)
                if (error.closes) {
                    replyLast(id, error.code, error.message)
                    leaving = true
                    return
                }
                Reply(errorReply(id, error.code, error.message))
            }
        frame.payload.drain()
        val header = encodeHeader(mapOf("id" to id) + reply.fields, reply.payload.sumOf { it.size })
        connection.write(header, *reply.payload)
    }

    /** Performs the request; failures of the request are OpErrors, anything else ends the connection. */
    private fun perform(
        id: Long?,
        frame: Frame,
    ): Reply {
        val request = parse(frame.header)
        workOf(request)?.let(config.listener::onWork)
        try {
            return dispatch(id, request, frame.payload)
        } catch (_: OutOfMemoryError) {
            throw OpError("out_of_memory", "no memory left for this request; unload models or take smaller ones")
        } catch (error: Throwable) {
            if (error is OpError || error is FrameException || error is ConnectionLost) throw error
            error.printStackTrace()
            throw OpError("internal", "the agent failed: $error; its log has the details")
        }
    }

    private fun parse(header: Map<String, Any?>): Request {
        val op = header["op"] as? String
        if (op !in OPS) {
            throw OpError(
                "unknown_op",
                "unknown op '${header["op"].toString().take(64)}'; known: ${OPS.joinToString()}",
            )
        }
        try {
            return readRequest(op!!, header)
        } catch (error: SchemaException) {
            throw OpError("bad_request", "$op: ${error.message}")
        }
    }

    private fun dispatch(
        id: Long?,
        request: Request,
        payload: Payload,
    ): Reply =
        when (request) {
            is Request.Hello -> greet(request)
            is Request.Bye -> Reply().also { leaving = true }
            else -> operations.perform(request, payload) { executions -> beat(id, executions) }
        }

    /** A sign of life before the reply to a run. */
    private fun beat(
        id: Long?,
        executions: Int,
    ) = connection.write(encodeHeader(mapOf("id" to id, "running" to executions)))

    private fun greet(request: Request.Hello): Reply {
        refusalOf(request, config.token())?.let { throw it }
        if (!greeted) config.listener.onClientConnected()
        greeted = true
        return Reply(
            helloFields(config.info, config.probe.identity(), config.runtimes.mapValues { it.value.describe() }),
        )
    }

    /** The error that ends the connection; a client that is gone does not hear it. */
    private fun replyLast(
        id: Long?,
        code: String,
        message: String,
    ) {
        try {
            connection.write(encodeHeader(errorReply(id, code, message)))
        } catch (_: ConnectionLost) {
            return
        } catch (_: FrameException) {
            return
        }
    }
}
