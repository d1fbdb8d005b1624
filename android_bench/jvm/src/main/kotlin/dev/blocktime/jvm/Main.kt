package dev.blocktime.jvm

import dev.blocktime.core.agent.AgentConfig
import dev.blocktime.core.agent.AgentInfo
import dev.blocktime.core.agent.AgentListener
import dev.blocktime.core.agent.AgentServer
import dev.blocktime.core.bundle.BundleException
import dev.blocktime.core.bundle.journalBeside
import dev.blocktime.core.bundle.runBundle
import dev.blocktime.core.device.Caveat
import dev.blocktime.core.device.Readiness
import dev.blocktime.core.device.SysFs
import dev.blocktime.core.device.threadsByDefault
import dev.blocktime.core.store.ModelStore
import dev.blocktime.core.timing.warmUpTiming
import dev.blocktime.executorch.ExecutorchRuntime
import java.io.File
import java.io.IOException
import kotlin.system.exitProcess

private const val TOKEN_VARIABLE = "BLOCKTIME_TOKEN"
private const val ALLOW_VARIABLE = "BLOCKTIME_ALLOW"

private const val EXIT_USAGE = 2
private const val EXIT_DEVICE = 3
private const val EXIT_INVALID = 6

/** The Kotlin agent on Linux. Token from the environment; one JSON line on stdout once it listens. */
fun main(args: Array<String>) {
    try {
        val options = Options.parse(args.toList())
        if (options.parentWatch) watchParent()
        options.bundle?.let { return measureAlone(it, options) }
        val token = System.getenv(TOKEN_VARIABLE).orEmpty()
        if (token.isEmpty()) throw UsageException("the agent needs a token; set $TOKEN_VARIABLE")
        val config = configure(options, token, options.port)
        warmUpTiming()
        val port = AgentServer(config).start()
        println("""{"port": $port, "pid": ${ProcessHandle.current().pid()}}""")
        Thread.currentThread().join()
    } catch (error: UsageException) {
        fail(error.message, EXIT_USAGE)
    } catch (error: BundleException) {
        fail(error.message, EXIT_INVALID)
    } catch (error: IOException) {
        fail(error.message.orEmpty(), EXIT_DEVICE)
    }
}

/** Runs a bundle and prints its journal's path. */
private fun measureAlone(
    bundle: File,
    options: Options,
) {
    val journal = options.journal ?: journalBeside(bundle)
    warmUpTiming()
    runBundle(bundle, journal, { configure(options, it, port = 0) }, System.err::println)
    println(journal)
    exitProcess(0)
}

private fun configure(
    options: Options,
    token: String,
    port: Int,
): AgentConfig {
    val allowed = allowed()
    val proc = ProcFs()
    val sys = SysFs()
    val probe = HostProbe(proc, sys, options.simulate)
    val threads = threadsByDefault(probe.cores, sys.capacities(), sys.highestMhz())
    return AgentConfig(
        info = AgentInfo("blocktime-kotlin", property("dev.blocktime.version")),
        token = { token },
        port = port,
        store = ModelStore(options.store, options.storeBytes),
        runtimes =
            mapOf(
                "executorch" to
                    ExecutorchRuntime(
                        property("dev.blocktime.executorch"),
                        probe.cores,
                        threads,
                        freeMemoryBytes = proc::freeMemoryBytes,
                    ),
            ),
        probe = probe,
        readiness = Readiness { allowed },
        listener = Log,
    )
}

private fun allowed(): Set<Caveat> =
    try {
        Caveat.parse(System.getenv(ALLOW_VARIABLE).orEmpty())
    } catch (error: IllegalArgumentException) {
        throw UsageException("$ALLOW_VARIABLE: ${error.message}")
    }

/** Set by the script that starts the agent. */
private fun property(name: String): String =
    System.getProperty(name) ?: throw UsageException("start the agent with its script: it sets $name")

private fun fail(
    message: String,
    exitCode: Int,
): Nothing {
    System.err.println(message)
    exitProcess(exitCode)
}

/** Refusals go to the log. */
private object Log : AgentListener {
    override fun onRefusal(
        code: String,
        message: String,
    ) = System.err.println("$code: $message")
}
