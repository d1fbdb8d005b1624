package dev.blocktime.core.bundle

/** What an agent does with a bundle; PROTOCOL.md, "Bundles", says what each field means. */
class Script(
    val rules: Rules,
    val load: Map<String, Any?>,
    val run: Map<String, Any?>,
    val batches: List<Batch>,
    val stop: Stop?,
) {
    /** Times are in seconds. */
    class Rules(
        val attempts: Int,
        val deaths: Int,
        val pollS: Double,
        val waitS: Double,
        val coolS: Double,
        val hotHeadroom: Double,
        val coolHeadroom: Double,
    )

    /** When there is enough; without it all rounds of all batches are run. */
    class Stop(
        val minRounds: Int,
        val loadSe: Double,
        val minPasses: Long,
        val halfWidth: Double,
        val budgetS: Double,
    )

    class Batch(
        val passIndex: Long,
        val group: Long,
        val slots: List<String>,
        val loading: List<Int>,
        val orders: List<List<List<Int>>>,
        val placement: Boolean,
    )

    companion object {
        /** Throws RuntimeException where [document] is no script. */
        fun of(document: Map<String, Any?>): Script =
            Script(
                rules(objectOf(document["rules"])),
                objectOf(document["load"]),
                objectOf(document["run"]),
                listOf(document["batches"]).map { batch(objectOf(it)) },
                document["stop"]?.let { stop(objectOf(it)) },
            )

        private fun rules(fields: Map<String, Any?>) =
            Rules(
                attempts = int(fields["attempts"]),
                deaths = int(fields["deaths"]),
                pollS = number(fields["poll_s"]),
                waitS = number(fields["wait_s"]),
                coolS = number(fields["cool_s"]),
                hotHeadroom = number(fields["hot_headroom"]),
                coolHeadroom = number(fields["cool_headroom"]),
            )

        private fun stop(fields: Map<String, Any?>) =
            Stop(
                minRounds = int(fields["min_rounds"]),
                loadSe = number(fields["load_se"]),
                minPasses = fields["min_passes"] as Long,
                halfWidth = number(fields["half_width"]),
                budgetS = number(fields["budget_s"]),
            )

        private fun batch(fields: Map<String, Any?>): Batch {
            val slots = listOf(fields["slots"]).map { it as String }
            val slot = { value: Any? -> int(value).also { require(it in slots.indices) { "there is no slot $it" } } }
            return Batch(
                passIndex = fields["pass_index"] as Long,
                group = fields["group"] as Long,
                slots = slots,
                loading = listOf(fields["loading"]).map(slot),
                orders = listOf(fields["orders"]).map { order -> listOf(order).map { listOf(it).map(slot) } },
                placement = fields["placement"] as Boolean,
            )
        }

        @Suppress("UNCHECKED_CAST") // the reader makes only string keys
        private fun objectOf(value: Any?) = value as Map<String, Any?>

        private fun listOf(value: Any?) = value as List<*>

        private fun int(value: Any?) = (value as Long).toInt()

        private fun number(value: Any?) = (value as Number).toDouble()
    }
}
