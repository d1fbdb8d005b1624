package dev.blocktime.core.wire

import java.math.BigInteger
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** How deep a header nests at most. */
const val MAX_DEPTH = 32

/** Digits that always fit into a Long. */
private const val LONG_DIGITS = 18

/** Text that breaks PROTOCOL.md's rules for headers; [message] says how. */
class JsonException(
    override val message: String,
) : Exception(message)

/**
 * The value in [bytes], which must be UTF-8 and hold one JSON value and whitespace. Stricter than org.json: a key may
 * not appear twice, strings must be valid Unicode, numbers must be within 64-bit floats, and objects and arrays nest at
 * most [maxDepth] deep, the outermost counted.
 *
 * Objects become maps, arrays lists, integers Long or BigInteger, other numbers Double. Throws [JsonException].
 */
fun readJson(
    bytes: ByteArray,
    maxDepth: Int = MAX_DEPTH,
): Any? {
    val decoder =
        Charsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
    val text =
        try {
            decoder.decode(ByteBuffer.wrap(bytes)).toString()
        } catch (_: CharacterCodingException) {
            throw JsonException("it is not UTF-8")
        }
    return JsonReader(text, maxDepth).readAll()
}

private class JsonReader(
    private val text: String,
    private val maxDepth: Int,
) {
    private var position = 0

    fun readAll(): Any? {
        val value = readValue(1)
        skipSpace()
        if (position < text.length) fail("something follows the value")
        return value
    }

    private fun readValue(depth: Int): Any? {
        skipSpace()
        return when (peek()) {
            '{' -> readObject(depth)
            '[' -> readArray(depth)
            '"' -> readString()
            't' -> readWord("true", true)
            'f' -> readWord("false", false)
            'n' -> readWord("null", null)
            else -> readNumber()
        }
    }

    private fun readObject(depth: Int): Map<String, Any?> {
        enter(depth)
        val fields = LinkedHashMap<String, Any?>()
        if (endsAtOnce('}')) return fields
        do {
            skipSpace()
            val key = readString()
            if (fields.containsKey(key)) fail("a key appears twice in one object")
            skipSpace()
            take(':')
            fields[key] = readValue(depth + 1)
        } while (continues('}'))
        return fields
    }

    private fun readArray(depth: Int): List<Any?> {
        enter(depth)
        val items = ArrayList<Any?>()
        if (endsAtOnce(']')) return items
        do {
            items += readValue(depth + 1)
        } while (continues(']'))
        return items
    }

    private fun enter(depth: Int) {
        if (depth > maxDepth) throw JsonException("it nests deeper than $maxDepth levels")
        position++
    }

    private fun endsAtOnce(end: Char): Boolean {
        skipSpace()
        if (peek() != end) return false
        position++
        return true
    }

    private fun continues(end: Char): Boolean {
        skipSpace()
        if (peek() == end) {
            position++
            return false
        }
        take(',')
        return true
    }

    private fun readString(): String {
        take('"')
        val start = position
        while (true) {
            when (val char = peek()) {
                '"' -> return text.substring(start, position++)
                '\\' -> return readEscaped(StringBuilder(text.substring(start, position)))
                else -> if (char < ' ') fail("a control character in a string") else position++
            }
        }
    }

    private fun readEscaped(result: StringBuilder): String {
        while (true) {
            val char = next()
            when {
                char == '"' -> break
                char == '\\' -> result.append(readEscape())
                char < ' ' -> fail("a control character in a string")
                else -> result.append(char)
            }
        }
        if (hasLoneSurrogate(result)) fail("half a surrogate pair in a string")
        return result.toString()
    }

    private fun readEscape(): Char =
        when (val char = next()) {
            '"', '\\', '/' -> char
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> readCodeUnit()
            else -> fail("an unknown escape in a string")
        }

    private fun readCodeUnit(): Char {
        var unit = 0
        repeat(4) {
            val digit = hexDigit(next())
            if (digit < 0) fail("a broken \\u escape in a string")
            unit = 16 * unit + digit
        }
        return unit.toChar()
    }

    private fun readWord(
        word: String,
        value: Any?,
    ): Any? {
        if (!text.startsWith(word, position)) fail("no JSON value")
        position += word.length
        return value
    }

    private fun readNumber(): Any {
        val start = position
        if (peekOrEnd() == '-') position++
        if (peekOrEnd() == '0') position++ else skipDigits()
        val integer = peekOrEnd().let { it != '.' && it != 'e' && it != 'E' }
        if (peekOrEnd() == '.') {
            position++
            skipDigits()
        }
        if (peekOrEnd() == 'e' || peekOrEnd() == 'E') {
            position++
            if (peekOrEnd() == '+' || peekOrEnd() == '-') position++
            skipDigits()
        }
        val digits = text.substring(start, position)
        if (integer && digits.length <= LONG_DIGITS) return digits.toLong()
        val value = digits.toDouble()
        if (value.isInfinite()) fail("a number out of range")
        return if (integer) exactInteger(digits) else value
    }

    /** At most 309 digits reach this. */
    private fun exactInteger(digits: String): Any {
        val value = BigInteger(digits)
        return if (value.bitLength() < Long.SIZE_BITS) value.toLong() else value
    }

    private fun skipDigits() {
        val start = position
        while (peekOrEnd() in '0'..'9') position++
        if (position == start) fail("no JSON value")
    }

    private fun skipSpace() {
        while (position < text.length && text[position] in " \t\n\r") position++
    }

    private fun take(char: Char) {
        if (next() != char) {
            position--
            fail("no '$char'")
        }
    }

    private fun next(): Char = peek().also { position++ }

    private fun peek(): Char = if (position < text.length) text[position] else fail("it ends too early")

    /** The next character; NUL, which no value contains, at the end. */
    private fun peekOrEnd(): Char = if (position < text.length) text[position] else '\u0000'

    private fun fail(what: String): Nothing = throw JsonException("it is not JSON: $what at character $position")
}

private fun hexDigit(char: Char): Int =
    when (char) {
        in '0'..'9' -> char - '0'
        in 'a'..'f' -> char - 'a' + 10
        in 'A'..'F' -> char - 'A' + 10
        else -> -1
    }

private fun hasLoneSurrogate(text: CharSequence): Boolean {
    var index = 0
    while (index < text.length) {
        val pair = text[index].isHighSurrogate() && index + 1 < text.length && text[index + 1].isLowSurrogate()
        if (!pair && text[index].isSurrogate()) return true
        index += if (pair) 2 else 1
    }
    return false
}
