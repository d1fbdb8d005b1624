"""`bench` as its user calls it: what it prints, how it fails, and the exit codes that scripts rely on.

Where the process is not what is tested, the command runs in the test's own.
"""

import json

import pytest

from tests.support.bench import bench, program, refused


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for folder in ("runs", "luts", "cache"):
        monkeypatch.setenv(f"BLOCKTIME_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.chdir(tmp_path)


def test_spaces_and_architectures_as_json():
    rows = json.loads(program("space", "list", "--json").stdout)
    sizes = {"autovit-xxs", "autovit-xs", "autovit-s"}
    autovit = (
        {"autovit-nano", "autovit-cifar", "autovit-cifar16", "autovit-joint"}
        | sizes
        | {f"{name}-table1" for name in sizes}
    )
    others = {"mobilevit", "efficientvit-cga", "efficientvit-nano", "nasbench-macro"}
    assert {row["space"] for row in rows} >= autovit | others
    shown = json.loads(bench("arch", "show", "autovit-xxs-paper", "--json").stdout)
    assert shown["params"] == 1815528
    assert shown["conv_linear_macs"] == 309480832
    assert sum(block["params"] for block in shown["blocks"]) == shown["params"]


def test_the_table_of_an_architecture_names_both_mac_counts():
    text = bench("arch", "show", "autovit-s-paper").stdout
    assert "6.291 M parameters, 1.397 G conv+linear MACs" in text
    assert "mvit.layer(d=128,heads=9,head_dim=32,ratio=1.5,patch=2)@32" in text


def test_unknown_names_end_with_2_and_name_the_known_ones():
    refused(program("space", "show", "autovit-huge"), 2, "autovit-nano")
    refused(bench("space", "show", "autovit-huge"), 2, "autovit-nano")
    refused(bench("arch", "show", "autovit-huge"), 2, "autovit-xxs-paper")
    profile = ("profile", "--device", "host", "--space")
    refused(bench(*profile, "autovit-huge"), 2, "autovit-nano")
    refused(bench(*profile, "autovit-nano", "--runtime", "tflite"), 2, "executorch")
    refused(
        bench(*profile, "autovit-nano", "--runtime", "coreml"),
        3,
        "Core ML, which needs an iPhone or a Mac",
    )
    refused(bench(*profile, "autovit-nano", "--resolution", "63"), 2, "no resolution 63")
    refused(bench(*profile, "autovit-nano", "--threads", "64"), 2, "64 threads", "--threads")
    refused(bench("lut", "show", "nosuch"), 2, "no LUT nosuch")
    assert bench("profile", "--nosuch").returncode == 2


def test_an_absent_iphone_is_named_with_what_is_attached_and_what_to_do():
    result = bench("profile", "--device", "iphone13", "--space", "autovit-nano")
    refused(result, 3, "no iPhone 13 (iPhone14,5) found", "attached: ", "bench devices")
    refused(bench("profile", "--device", "iphnoe13", "--space", "autovit-nano"), 3, "did you mean iphone13")


def test_damaged_files_end_with_6(tmp_path):
    (tmp_path / "arch.json").write_text('{"space":')
    refused(bench("arch", "show", "arch.json"), 6, "arch.json: architecture is not JSON")
    (tmp_path / "empty.pte").write_bytes(b"")
    refused(bench("measure", "--device", "host", "--artifact", "empty.pte"), 6, "0 bytes")
    refused(bench("measure", "--device", "host", "--artifact", "missing.pte"), 6, "missing.pte")
    folder = tmp_path / "luts/host/autovit-nano/executorch-xnnpack-fp32-t1/v1"
    folder.mkdir(parents=True)
    (folder / "lut.json").write_text("{}")
    refused(bench("lut", "verify", "host"), 6)


def test_a_truncated_model_ends_with_6_and_says_which(tmp_path):
    (tmp_path / "cut.pte").write_bytes(b"\x00" * 4096)
    refused(program("measure", "--device", "host", "--artifact", "cut.pte", "--threads", "1"), 6, "cut.pte")


def test_an_unknown_network_names_what_comes_close():
    for command in (("measure", "--device", "host"), ("export",)):
        hint = ("did you mean mobilevit-", "bench arch list", "or timm:NAME")
        refused(bench(*command, "--model", "mobilevit-m"), 2, *hint)


def test_a_plan_says_what_would_be_measured_without_a_device():
    plan = json.loads(
        bench("profile", "--device", "host", "--space", "autovit-nano", "--plan-only", "--json").stdout
    )
    assert plan["models"]["reference"] == 1
    assert len(plan["blocks"]) == 40
    assert all(row["models"] > 0 for row in plan["blocks"])


def test_devices_lists_the_host_and_what_is_missing():
    rows = json.loads(bench("devices", "--json").stdout)
    assert rows[0]["device"] == "host"
    assert rows[0]["next_step"] == "ready"
