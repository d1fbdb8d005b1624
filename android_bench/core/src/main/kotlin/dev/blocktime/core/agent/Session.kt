package dev.blocktime.core.agent

import dev.blocktime.core.OpError
import dev.blocktime.core.wire.COUNT
import dev.blocktime.core.wire.Connection
import dev.blocktime.core.wire.ConnectionLost
import dev.blocktime.core.wire.Frame
import dev.blocktime.core.wire.FrameException
import dev.blocktime.core.wire.OPS
import dev.blocktime.core.wire.PROTOCOL_VERSION
import dev.blocktime.core.wire.Payload
import dev.blocktime.core.wire.Request
import dev.blocktime.core.wire.SchemaException
import dev.blocktime.core.wire.encodeHeader
import dev.blocktime.core.wire.errorReply
import dev.blocktime.core.wire.helloFields
import dev.blocktime.core.wire.readFrame
import dev.blocktime.core.wire.readRequest
import java.security.MessageDigest

/** What an op answers: the reply's fields, and the payload in pieces. */
internal class Answer(
    val fields: Map<String, Any?> = emptyMap(),
    vararg val payload: ByteArray,
)

/** One client's connection: reads requests, checks and answers them, and frees all that was loaded at the end. */
internal class Session(
    private val config: AgentConfig,
    private val connection: Connection,
) {
    private val models = LoadedModels()
    private val operations = Operations(config, models, connection::isClientThere)
    private var greeted = false
    private var leaving = false

    /** Answers requests until the client leaves, vanishes or breaks the protocol. Then everything is freed. */
    fun serve() {
        try {
            while (!leaving) {
                if (!connection.awaitInput(if (greeted) 0 else config.timeouts.helloMs)) {
                    throw FrameException("timeout", "no hello within ${config.timeouts.helloMs / 1000} s")
                }
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
        val id = (frame.header["id"] as? Long)?.takeIf { it in COUNT }
        val answer =
            try {
                perform(frame)
            } catch (error: OpError) {
                config.listener.onRefusal(error.code, error.message)
                if (error.closes) {
                    replyLast(id, error.code, error.message)
                    leaving = true
                    return
                }
                Answer(errorReply(id, error.code, error.message))
            }
        frame.payload.drain()
        val header = encodeHeader(mapOf("id" to id) + answer.fields, answer.payload.sumOf { it.size })
        connection.write(header, *answer.payload)
    }

    /** Performs the request; whatever goes wrong with it is an OpError, whatever ends the connection is not. */
    private fun perform(frame: Frame): Answer {
        val request = parse(frame.header)
        config.listener.onWork(workOf(request))
        try {
            return dispatch(request, frame.payload)
        } catch (error: OpError) {
            throw error
        } catch (error: FrameException) {
            throw error
        } catch (error: ConnectionLost) {
            throw error
        } catch (_: OutOfMemoryError) {
            throw OpError("out_of_memory", "no memory left for this request; unload models or take smaller ones")
        } catch (error: Throwable) {
            error.printStackTrace()
            throw OpError("internal", "the agent failed: $error; its log has the details")
        } finally {
            config.listener.onWork(null)
        }
    }

    private fun parse(header: Map<String, Any?>): Request {
        val op = header["op"] as? String
        if (!greeted && op != "hello") throw OpError("unauthorized", "say hello first", closes = true)
        if (op !in OPS) {
            throw OpError(
                "unknown_op",
                "unknown op '${header["op"].toString().take(64)}'; known: ${OPS.joinToString()}",
            )
        }
        try {
            return readRequest(op!!, header)
        } catch (error: SchemaException) {
            throw OpError("bad_request", "$op: ${error.message}", closes = !greeted)
        }
    }

    private fun dispatch(
        request: Request,
        payload: Payload,
    ): Answer =
        when (request) {
            is Request.Hello -> greet(request)
            is Request.Bye -> Answer().also { leaving = true }
            else -> operations.perform(request, payload)
        }

    private fun greet(request: Request.Hello): Answer {
        val token = config.token().orEmpty()
        if (token.isEmpty()) {
            throw OpError("unauthorized", "the agent was given no token yet; start it with one", closes = true)
        }
        // Compares in constant time.
        if (!MessageDigest.isEqual(request.token.toByteArray(), token.toByteArray())) {
            throw OpError("unauthorized", "wrong token; take the one that the agent was started with", closes = true)
        }
        if (request.protocol != PROTOCOL_VERSION.toLong()) {
            throw OpError(
                "protocol_version",
                "this agent speaks protocol $PROTOCOL_VERSION, not ${request.protocol}; " +
                    "install the same version of blocktime on both sides",
                closes = true,
            )
        }
        if (!greeted) config.listener.onClientConnected()
        greeted = true
        return Answer(
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
