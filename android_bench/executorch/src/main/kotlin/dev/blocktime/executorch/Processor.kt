package dev.blocktime.executorch

private const val ATOMICS = "atomics"

/**
 * Why ExecuTorch's library for arm64 would be ended by an illegal instruction on the processor that this [cpuinfo]
 * (/proc/cpuinfo) tells of, in a line; null where nothing speaks against it. The library uses the atomic instructions of
 * ARMv8.1 (LSE), which Cortex-A53, A57, A72 and A73 lack.
 */
fun unsupportedProcessor(cpuinfo: String): String? {
    val features = cpuinfo.lineSequence().filter { it.substringBefore(':').trim() == "Features" }
    if (features.all { ATOMICS in it.substringAfter(':').trim().split(' ') }) return null
    return "this phone's processor lacks the atomic instructions of ARMv8.1 (LSE) that ExecuTorch's library uses; " +
        "measure on a newer phone"
}
