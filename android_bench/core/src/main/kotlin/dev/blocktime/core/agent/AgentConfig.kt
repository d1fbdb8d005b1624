package dev.blocktime.core.agent

import dev.blocktime.core.device.DeviceProbe
import dev.blocktime.core.device.Readiness
import dev.blocktime.core.runtime.Runtime
import dev.blocktime.core.store.ModelStore

/** The port that agents in apps listen on. */
const val PHONE_PORT = 47613

/**
 * What an agent is made of. [token] is read at every hello: null or empty while none is set, and then
 * everybody is refused. [port] 0 takes a free one. [onThread] is called first in the thread that loads and times models.
 */
class AgentConfig(
    val info: AgentInfo,
    val token: () -> String?,
    val port: Int,
    val store: ModelStore,
    val runtimes: Map<String, Runtime>,
    val probe: DeviceProbe,
    val readiness: Readiness,
    val listener: AgentListener = object : AgentListener {},
    val timeouts: Timeouts = Timeouts(),
    val onThread: () -> Unit = {},
)

/** Name and version; any change of what is measured, or how, changes the version. */
data class AgentInfo(
    val name: String,
    val version: String,
)

/**
 * How long an agent waits, in milliseconds. [helloMs]: for a hello to have arrived. [frameMs]: for the next byte of a
 * frame. [handoverMs]: for the place of a client that has just left.
 */
data class Timeouts(
    val helloMs: Long = 10_000,
    val frameMs: Long = 30_000,
    val handoverMs: Long = 2_000,
)
