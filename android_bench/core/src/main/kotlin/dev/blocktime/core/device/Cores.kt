package dev.blocktime.core.device

private val RANGE = Regex("(\\d{1,4})(?:-(\\d{1,4}))?")

/** The cores of a list as Linux writes it (`4-8`, `0,2-3`), in rising order; throws IllegalArgumentException where it is not one. */
fun parseCores(list: String): List<Int> =
    list
        .split(',')
        .flatMap { part ->
            val (first, last) =
                RANGE.matchEntire(part)?.destructured
                    ?: throw IllegalArgumentException("'${list.take(64)}' is not a list of cores such as 4-8 or 0,2-3")
            val cores = first.toInt()..(last.ifEmpty { first }).toInt()
            require(!cores.isEmpty()) { "'${list.take(64)}' is not a list of cores such as 4-8 or 0,2-3" }
            cores
        }.toSortedSet()
        .toList()

/** The cores that the thread of this [status], a file of /proc, may run on, as Linux lists them; null if it does not report it. */
fun allowedCores(status: String): String? =
    status
        .lineSequence()
        .find { it.startsWith("Cpus_allowed_list:") }
        ?.substringAfter(':')
        ?.trim()
        ?.ifEmpty { null }

/**
 * How many of [cores] are not little: threads on little cores hold up the others. Little are the cores of the lowest
 * maximal clock. Where all clocks in [highestMhz], by core, are equal or one is missing, half of the cores, at least one.
 */
fun threadsByDefault(
    cores: List<Int>,
    highestMhz: Map<Int, Double>,
): Int {
    val clocks = cores.mapNotNull(highestMhz::get)
    val lowest = clocks.minOrNull()
    val fast = clocks.count { it != lowest }
    return if (clocks.size == cores.size && fast > 0) fast else maxOf(1, cores.size / 2)
}
