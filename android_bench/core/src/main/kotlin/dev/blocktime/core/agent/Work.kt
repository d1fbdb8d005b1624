package dev.blocktime.core.agent

import dev.blocktime.core.wire.Request

private const val SHORT_HASH = 12

/** The request that is worked on. [detail] is for people: a model's short hash, or how many visits. */
data class Work(
    val op: String,
    val detail: String,
)

/** Description of [request] for the screen, never with the token; null: none. */
internal fun workOf(request: Request): Work? =
    when (request) {
        is Request.Hello -> Work("hello", "")
        is Request.Have -> Work("have", request.sha256.take(SHORT_HASH))
        is Request.Put -> Work("put", request.sha256.take(SHORT_HASH))
        is Request.Load -> Work("load", request.sha256.take(SHORT_HASH))
        is Request.Placement -> Work("placement", "handle ${request.handle}")
        is Request.Unload -> Work("unload", "handle ${request.handle}")
        is Request.Check -> Work("check", "handle ${request.handle}")
        is Request.Run -> null
        Request.State -> Work("state", "")
        Request.Bye -> Work("bye", "")
    }
