"""Tables of block latencies that others published: what keys cost on paper, and that none passes as a LUT."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from luts.estimate.physics import amounts
from luts.format.store import LutStore
from luts.published import (
    features_of_key,
    list_published,
    load_published_lut,
    read_published,
    read_table,
    write_published,
)
from tests.support.bench import answer, bench
from tests.support.errors import raises

SHARED = Path(os.environ.get("BLOCKTIME_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
PHONES = SHARED / "phone-luts"
KEY = "conv_64_16_24_2_2_hard_swish_3_se"


def table(folder, **ms):
    file = folder / "table.json"
    file.write_text(json.dumps(ms or {KEY: 0.5}))
    return file


def read(file):
    return read_table(file, "pixel6", "a repository", "MIT", "nn-meter-hybrid", "tflite-cpu", "Pixel 6")


def test_an_mbconv_with_a_shortcut_by_hand():
    """16 to 32 wide at 64 px, to 24 at 32 px; the gate squeezes 32 to 8; the shortcut is pooled, 16 to 24."""
    expand, depthwise, project, shortcut = 16 * 32 * 64**2, 32 * 9 * 32**2, 32 * 24 * 32**2, 16 * 24 * 32**2
    feature = features_of_key(KEY)
    assert feature.macs == expand + depthwise + project + shortcut + 2 * 32 * 8
    assert feature.depthwise_macs == depthwise
    weights = 16 * 32 + 32 * 9 + 2 * 32 * 8 + 32 * 24 + 16 * 24
    assert feature.params == weights + 32 + 32 + 8 + 32 + 24 + 24
    wide, narrow = 64**2, 32**2
    convolutions = 16 * wide + 32 * wide + 32 * wide + 32 * narrow + 32 * narrow + 24 * narrow
    gate = 32 * narrow + 32 + 32 + 8 + 8 + 32 + 2 * 32 * narrow + 32
    assert feature.traffic_bytes == 4 * (
        convolutions + gate + 16 * wide + 16 * narrow + 16 * narrow + 24 * narrow + 3 * 24 * narrow
    )


def test_attention_and_mlp_by_hand():
    """4 tokens of 32: two heads of 16, values of 32; an MLP of 96."""
    attention = features_of_key("transattn_2_32_hard_swish_2_ln")
    assert attention.macs == 4 * 32 * (2 * 32 + 64) + 4 * 4 * (32 + 64) + 4 * 64 * 32
    assert attention.kind == "transattn"
    assert features_of_key("transffn_2_32_3_hard_swish_ln").macs == 2 * 4 * 32 * 96


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv",
        "conv_64_16_24_2_3_hard_swish_3_se",
        "conv(in=3)@8",
        KEY + "\n",
        "transattn_0_32_hard_swish_2_ln",
    ],
)
def test_other_key_is_refused(key):
    with pytest.raises(ValueError):
        features_of_key(key)


@pytest.mark.parametrize("phone", ["pixel1", "pixel6", "xiaomi11"])
def test_published_phone_tables_are_read(phone):
    """Physics per kind of block leaves at most 17 % of attention and 7 % of the others: features are right."""
    file = PHONES / f"lut_{phone}.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there; set BLOCKTIME_SHARED_DATA to the directory of phone-luts")
    lut = read(file)
    assert len(lut.blocks) == 12_116
    assert lut.entry_ms == json.loads(file.read_text())
    for kind in {block.kind for block in lut.blocks}:
        blocks = [block for block in lut.blocks if block.kind == kind]
        relative = np.array([amounts(block) for block in blocks]) / np.array([[block.ms] for block in blocks])
        unit = relative.max(axis=0) + 1e-12
        left = relative / unit @ np.linalg.lstsq(relative / unit, np.ones(len(blocks)))[0] - 1
        assert np.sqrt((left**2).mean()) < (0.2 if kind == "transattn" else 0.08), kind


def test_published_table_is_not_a_lut(tmp_path):
    lut = read(table(tmp_path))
    path = write_published(lut, tmp_path / "luts")
    assert LutStore([tmp_path / "luts"]).list() == []
    assert list_published([tmp_path / "luts"]) == {"published/pixel6/nn-meter-hybrid/tflite-cpu": path}
    assert load_published_lut(str(lut), [tmp_path / "luts"]) == lut
    written = json.loads(path.read_text())
    assert written["label"] == "published"
    assert "measured" not in path.read_text()
    assert not {"ci_low", "ci_high", "reference_ms"} & {*written, *written["blocks"][0]}


def test_published_table_is_written_once(tmp_path):
    path = write_published(read(table(tmp_path)), tmp_path / "luts")
    before = path.read_bytes()
    assert write_published(read(table(tmp_path)), tmp_path / "luts") == path
    with raises("name_taken"):
        write_published(read(table(tmp_path, **{KEY: 0.6})), tmp_path / "luts")
    assert path.read_bytes() == before


def test_an_edited_number_is_noticed(tmp_path):
    path = write_published(read(table(tmp_path)), tmp_path / "luts")
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"ms": 0.5', '"ms": 0.4'))
    with raises("invalid_file"):
        read_published(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"conv": 1}',
        f'{{"{KEY}": 0}}',
        f'{{"{KEY}": NaN}}',
        f'{{"{KEY}": 1, "{KEY}": 2}}',
        "[" * 99_999,
    ],
)
def test_other_file_is_refused(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with raises("invalid_published_table") as refused:
        read(tmp_path / "t.json")
    assert "\n" not in str(refused.value)


def test_import_command_and_list(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    options = (
        "--name",
        "pixel6",
        "--title",
        "Pixel 6",
        "--source",
        "a repository",
        "--licence",
        "MIT",
        "--json",
    )
    done = json.loads(answer("lut", "import-published", table(tmp_path), *options))
    assert done["published"] == "published/pixel6/nn-meter-hybrid/tflite-cpu"
    row = next(row for row in json.loads(answer("lut", "list", "--json")) if row["lut"] == done["published"])
    assert (row["kind"], row["model"], row["broken"]) == ("published", "Pixel 6", None)
    refused = bench("lut", "import-published", table(tmp_path), *options[:-1], "--space", "autovit-xxs")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
