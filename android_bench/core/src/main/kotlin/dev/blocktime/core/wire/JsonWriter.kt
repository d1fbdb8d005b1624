package dev.blocktime.core.wire

import java.math.BigInteger

/**
 * [value] as JSON in ASCII: maps with string keys, collections, strings, booleans, null, integers and finite floats.
 * Half a surrogate pair is written as U+FFFD. Throws IllegalArgumentException for anything else.
 */
fun writeJson(value: Any?): String = StringBuilder().also { append(it, value) }.toString()

private fun append(
    out: StringBuilder,
    value: Any?,
) {
    when (value) {
        null, is Boolean, is Int, is Long, is BigInteger -> out.append(value)
        is Double -> out.append(value.also { require(it.isFinite()) { "JSON has no $it" } })
        is String -> appendString(out, value)
        is Map<*, *> -> appendAll(out, value.entries, '{', '}') { (key, item) -> appendField(out, key as String, item) }
        is Collection<*> -> appendAll(out, value, '[', ']') { append(out, it) }
        else -> throw IllegalArgumentException("JSON has no ${value.javaClass.name}")
    }
}

private fun appendField(
    out: StringBuilder,
    key: String,
    value: Any?,
) {
    appendString(out, key)
    out.append(':')
    append(out, value)
}

private inline fun <T> appendAll(
    out: StringBuilder,
    items: Collection<T>,
    start: Char,
    end: Char,
    appendItem: (T) -> Unit,
) {
    out.append(start)
    for ((index, item) in items.withIndex()) {
        if (index > 0) out.append(',')
        appendItem(item)
    }
    out.append(end)
}

private fun appendString(
    out: StringBuilder,
    text: String,
) {
    out.append('"')
    for ((index, char) in text.withIndex()) {
        when {
            char == '"' || char == '\\' -> out.append('\\').append(char)
            char in ' '..'~' -> out.append(char)
            char.isSurrogate() && !isPaired(text, index) -> appendEscape(out, '\uFFFD')
            else -> appendEscape(out, char)
        }
    }
    out.append('"')
}

private fun appendEscape(
    out: StringBuilder,
    char: Char,
) {
    out.append("\\u").append(char.code.toString(16).padStart(4, '0'))
}

private fun isPaired(
    text: String,
    index: Int,
): Boolean =
    if (text[index].isHighSurrogate()) {
        index + 1 < text.length && text[index + 1].isLowSurrogate()
    } else {
        index > 0 && text[index - 1].isHighSurrogate()
    }
