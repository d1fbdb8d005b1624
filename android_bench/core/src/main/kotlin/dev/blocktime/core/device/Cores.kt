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

/** A core is little below this share of the largest core's capacity: middle cores have more, little ones much less. */
private const val LITTLE_SHARE = 0.5

/**
 * How many of [cores] are not little: threads on little cores hold up the others. Little are cores with less than half
 * of the largest of [capacities], which Linux measures by core, or of [highestMhz] where a core has no capacity. Where
 * all capacities are equal, and where no clock is that low or one is missing, half of the cores, at least one: clocks
 * alone do not tell a little core from a middle one.
 */
fun threadsByDefault(
    cores: List<Int>,
    capacities: Map<Int, Double>,
    highestMhz: Map<Int, Double>,
): Int {
    val measured = cores.mapNotNull(capacities::get)
    val hasCapacities = measured.size == cores.size
    val sizes = if (hasCapacities) measured else cores.mapNotNull(highestMhz::get)
    val largest = sizes.maxOrNull() ?: 0.0
    val fast = sizes.count { it >= LITTLE_SHARE * largest }
    val tells = if (hasCapacities) sizes.any { it != largest } else sizes.size == cores.size && fast < sizes.size
    return if (tells) fast else maxOf(1, cores.size / 2)
}
