"""Packets: layout, bounds, checksums."""

import pytest

from orchestrator.devices.android import packets


def test_header_is_laid_out_as_adb_writes_it():
    raw = packets.pack_header(packets.CNXN, 0x01000001, 0x40000, b"abc", with_checksum=True)

    assert raw[:4] == b"CNXN"
    assert raw[4:8] == bytes.fromhex("01000001")
    assert raw[12:16] == (3).to_bytes(4, "little")
    assert raw[16:20] == (97 + 98 + 99).to_bytes(4, "little")
    assert raw[20:] == bytes(byte ^ 0xFF for byte in b"CNXN")
    assert packets.parse_header(raw) == packets.Header(packets.CNXN, 0x01000001, 0x40000, 3)


def test_checksum_is_the_sum_of_bytes_and_wraps():
    assert packets.checksum(b"") == 0
    assert packets.checksum(b"\xff" * (1 << 20)) == 255 << 20
    assert packets.checksum(bytes(range(256)) * 3) == 3 * 255 * 128


def test_checksum_is_left_out_where_agreed():
    raw = packets.pack_header(packets.WRTE, 1, 2, b"abc", with_checksum=False)
    assert raw[16:20] == bytes(4)


@pytest.mark.parametrize("bit", [0, 31, 160, 191])
def test_broken_magic_is_no_packet(bit):
    raw = bytearray(packets.pack_header(packets.OKAY, 1, 2, b"", with_checksum=False))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(packets.PacketError, match="where an adb packet begins"):
        packets.parse_header(bytes(raw))


def test_payload_over_the_agreed_size_is_refused_before_it_is_read():
    raw = packets.HEADER.pack(packets.WRTE, 1, 2, packets.MAX_PAYLOAD_BYTES + 1, 0, packets.WRTE ^ 0xFFFFFFFF)
    with pytest.raises(packets.PacketError, match="262145 bytes; 262144 were agreed"):
        packets.parse_header(raw)
