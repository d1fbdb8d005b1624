"""Text of options as values."""

import pytest

from luts.format.errors import UsageError
from orchestrator.tasks.parsing import (
    parse_budget,
    parse_bytes,
    parse_count,
    parse_fraction,
    parse_heads,
    parse_latency,
    parse_pace,
    parse_percent,
)


def refused(parse, text):
    with pytest.raises(UsageError) as error:
        parse(text) if parse in (parse_budget, parse_latency) else parse(text, "--option")
    return str(error.value)


def test_amounts_with_their_units():
    assert [parse_budget(t) for t in ("90s", "15m", "15min", "2h", "0.5m")] == [90, 900, 900, 7200, 30]
    assert [parse_latency(t) for t in ("10ms", "10 ms", "150us", "150µs", ".2s")] == [10, 10, 0.15, 0.15, 200]
    assert [parse_count(t, "--params") for t in ("1.8M", "300k", "1800000")] == [1.8e6, 3e5, 1.8e6]
    sizes = ("10KB", "10K", "10B", "2MiB", "900000")
    assert [parse_bytes(t, "--memory") for t in sizes] == [10_000, 10_000, 10, 2 * 1024**2, 900_000]
    assert parse_bytes("0", "--trim", zero=True) == 0
    assert [parse_percent(t, "--narrow") for t in ("1.5%", "1.5", "0.015%", "0")] == [1.5, 1.5, 0.015, 0]
    assert [parse_fraction(t, "--confidence") for t in ("95%", "0.95", "99.9%", "1", "0")] == [
        0.95,
        0.95,
        0.999,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("parse", "expected", "texts"),
    [
        (parse_budget, "expected a time such as 90s", ("", "-3m", "1d", "0s", "soon")),
        (parse_latency, "expected a latency such as 10ms", ("0ms", "fast", "-1", "10min")),
        (parse_count, "expected a number such as 1.8M", ("few", "1.8MB", "0")),
        (parse_bytes, "expected a size such as 10KB", ("10kg", "0")),
        (parse_percent, "expected a percentage such as 1.5%", ("-1%", "1.5ms")),
        (parse_fraction, "expected a fraction such as 95% or 0.95", ("-1%", "high")),
    ],
)
def test_what_is_not_an_amount_says_what_would_be(parse, expected, texts):
    for text in texts:
        reported = refused(parse, text)
        assert expected in reported
        assert repr(text) in reported


def test_a_number_without_a_unit_is_asked_for_it():
    assert refused(parse_budget, "15") == "--budget '15' has no unit; is it 15s, 15m or 15h?"
    assert refused(parse_latency, "80") == "--latency '80' has no unit; is it 80ms, 80us or 80%?"
    assert refused(parse_count, "2") == "--option '2' has no unit; is it 2K, 2M or 2G?"
    assert refused(parse_bytes, "900") == "--option '900' has no unit; is it 900B, 900KB or 900MB?"
    assert refused(parse_percent, "0.015") == "--option '0.015' has no unit; is it 0.015% or 1.5%?"
    assert refused(parse_fraction, "95") == "--option '95' has no unit; is it 95% or 0.95?"


def test_a_pace_is_calls_a_second():
    assert [parse_pace(text) for text in (None, "30/s", "30 / s", "1/s")] == [0, 33333, 33333, 10**6]
    for text in ("30", "30/m", "0/s", "1001/s", "-1/s", "nan/s"):
        with pytest.raises(UsageError, match="expected 1/s to 1000/s calls a second, such as 30/s"):
            parse_pace(text)


def test_numbers_of_classes():
    assert parse_heads(None) == ()
    assert parse_heads("10,100,1000") == (10, 100, 1000)
    for text in ("", "10,", "ten", "0", "10,70000"):
        with pytest.raises(UsageError, match="expected numbers of classes, e.g. 10,100,1000"):
            parse_heads(text)
