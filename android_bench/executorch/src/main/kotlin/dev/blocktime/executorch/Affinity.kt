package dev.blocktime.executorch

/** Pins threads to cores, for which Java and Android have no call of their own. */
object Affinity {
    /** Whether this system has the library that does it. */
    val isAvailable: Boolean by lazy {
        try {
            System.loadLibrary("affinity")
            true
        } catch (_: UnsatisfiedLinkError) {
            false
        }
    }

    /** Lets all threads of this process run on [cores] alone, if it is available. 0, or an errno of Linux. */
    fun pin(cores: List<Int>): Int = pinNative(cores.toIntArray())

    @JvmStatic
    private external fun pinNative(cores: IntArray): Int
}
