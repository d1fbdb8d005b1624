package dev.blocktime.core.agent

import dev.blocktime.core.wire.OpError
import dev.blocktime.core.wire.PROTOCOL_VERSION
import dev.blocktime.core.wire.Request
import dev.blocktime.core.wire.SchemaException
import dev.blocktime.core.wire.readRequest
import java.security.MessageDigest

/** The hello in a connection's first [header]; throws OpError where it is another request, or breaks its schema. */
internal fun readHello(header: Map<String, Any?>): Request.Hello {
    if (header["op"] != "hello") throw OpError("unauthorized", "say hello first", closes = true)
    try {
        return readRequest("hello", header) as Request.Hello
    } catch (error: SchemaException) {
        throw OpError("bad_request", "hello: ${error.message}", closes = true)
    }
}

/** Reason to refuse [hello]; null if it can be served. The [token] is checked first. */
internal fun refusalOf(
    hello: Request.Hello,
    token: String?,
): OpError? =
    when {
        token.isNullOrEmpty() -> {
            OpError("unauthorized", "the agent was given no token yet; start it with one", closes = true)
        }

        // Compares in constant time.
        !MessageDigest.isEqual(hello.token.toByteArray(), token.toByteArray()) -> {
            OpError("unauthorized", "wrong token; take the one that the agent was started with", closes = true)
        }

        hello.protocol != PROTOCOL_VERSION.toLong() -> {
            OpError(
                "protocol_version",
                "this agent speaks protocol $PROTOCOL_VERSION, not ${hello.protocol}; " +
                    "install the same version of blocktime on both sides",
                closes = true,
            )
        }

        else -> {
            null
        }
    }
