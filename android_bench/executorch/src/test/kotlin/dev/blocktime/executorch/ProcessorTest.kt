package dev.blocktime.executorch

import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class ProcessorTest {
    private fun cpuinfo(vararg features: String) =
        features
            .mapIndexed {
                core,
                names,
                ->
                "processor\t: $core\nBogoMIPS\t: 38.40\nFeatures\t: $names\nCPU part\t: 0xd03\n"
            }.joinToString("\n")

    @Test
    fun `a processor without LSE atomics is refused in a line`() {
        val a53 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
        for (text in listOf(cpuinfo(a53), cpuinfo("$a53 atomics", a53), cpuinfo("$a53 atomicsx"))) {
            val reason = requireNotNull(unsupportedProcessor(text))
            assertTrue("LSE" in reason && "newer phone" in reason && '\n' !in reason, reason)
        }
    }

    @Test
    fun `a processor with them, or of another kind, is not`() {
        val a510 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm"
        assertNull(unsupportedProcessor(cpuinfo(a510, a510)))
        assertNull(unsupportedProcessor("processor\t: 0\nmodel name\t: x86\nflags\t\t: fpu vme\n"))
        assertNull(unsupportedProcessor(""))
    }
}
