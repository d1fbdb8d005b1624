"""LUTs pushed, found and pulled: what is refused, what is said of them, and what happens at the same time."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from luts.format.lut import MAX_FILE_BYTES
from luts.format.provenance import read_origin
from luts.format.store import LutStore
from luts.share.location import Folder, location
from luts.share.repository import Repository, note_verified, pull, push, sign_lut
from tests.support.errors import raises


def dated(lut, created):
    return replace(lut, meta=lut.meta.model_copy(update={"created": created}))


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


def test_pushed_lut_is_pulled_unchanged(refs, place, mine):
    shared, new = push(place, refs[0].path)
    pulled = pull(place, shared.name, mine)
    assert new
    assert pulled.new
    assert pulled.trust == "verified, unsigned"
    for name in MAX_FILE_BYTES:
        assert (pulled.path / name).read_bytes() == (refs[0].path / name).read_bytes()
    assert read_origin(pulled.path).url == place.location.url
    assert [str(ref) for ref in mine.list()] == [f"{shared.name}/v1"]


def test_second_push_or_pull_adds_nothing(refs, place, mine, tmp_path):
    push(place, refs[0].path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "place").rglob("*") if path.is_file()}
    assert push(place, refs[0].path)[1] is False
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "place").rglob("*") if path.is_file()
    }
    first = pull(place, refs[0].name, mine)
    again = pull(place, refs[0].name, mine)
    assert (again.path, again.new) == (first.path, False)


def test_ambiguous_and_unknown_names(refs, place, mine):
    for ref in refs:
        push(place, ref.path)
    with raises("ambiguous_lut") as asked:
        pull(place, refs[0].space, mine)
    assert one_line(asked)
    with raises("unknown_lut"):
        pull(place, "pixel9", mine)
    by_digest = place.luts()[1]
    assert pull(place, by_digest.digest[:8], mine).lut == by_digest


@pytest.mark.parametrize("name", MAX_FILE_BYTES)
def test_changed_file_is_refused(refs, place, mine, tmp_path, name):
    shared, _ = push(place, refs[0].path)
    file = tmp_path / "place" / shared.file_path(name)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with raises("shared_file_damaged") as refused:
        pull(place, shared.name, mine)
    assert one_line(refused)
    assert mine.list() == []
    with raises("other_content_exists"):
        push(place, refs[0].path)


@pytest.mark.parametrize("kind", ["link", "folder link", "folder", "fifo"])
def test_links_and_special_files_are_refused(refs, place, mine, tmp_path, kind):
    shared, _ = push(place, refs[0].path)
    file = tmp_path / "place" / shared.file_path("models.csv")
    if kind == "folder link":
        shutil.copytree(file.parent, tmp_path / "elsewhere")
        shutil.rmtree(file.parent)
        file.parent.symlink_to(tmp_path / "elsewhere")
    else:
        file.rename(tmp_path / "models.csv")
        if kind == "link":
            file.symlink_to(tmp_path / "models.csv")
        elif kind == "folder":
            file.mkdir()
        else:
            os.mkfifo(file)
    with raises("link_not_followed" if "link" in kind else "not_a_plain_file") as refused:
        pull(place, shared.name, mine)
    assert one_line(refused)
    assert mine.list() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "../../etc"),
        ("digest", "../" * 21 + "a"),
        ("files", {"lut.json": {"sha256": "0" * 64, "size": 1}}),
        ("files", {"../../lut.json": {"sha256": "0" * 64, "size": 1}}),
        ("reference_ms", -1.0),
        ("reference_ms", float("nan")),
    ],
)
def test_invalid_index_entries_are_left_out(refs, tmp_path, field, value):
    messages = []
    place = Repository(location(str(tmp_path / "place")), messages.append)
    shared, _ = push(place, refs[0].path)
    (tmp_path / "place/index.json").unlink()
    entry = tmp_path / "place" / shared.path
    entry.chmod(0o644)
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {field: value}))
    assert place.luts() == []
    assert len(messages) == 1
    assert "is left out" in messages[0]


def test_entry_under_another_name_is_left_out(refs, tmp_path):
    """Whoever may write one name must not offer a LUT under another."""
    messages = []
    place = Repository(location(str(tmp_path / "place")), messages.append)
    shared, _ = push(place, refs[0].path)
    other = shared.model_copy(update={"device": "iphone99"})
    place.location.create(other.path, (tmp_path / "place" / shared.path).read_bytes())
    assert place.luts() == [shared]
    assert len(messages) == 1
    assert other.path in messages[0]


def test_size_in_the_index_bounds_no_read_alone(refs, place, mine, monkeypatch):
    """An index that claims a petabyte makes a client read no more than a LUT's file may have."""
    shared, _ = push(place, refs[0].path)
    files = {name: file.model_copy(update={"size": 10**15}) for name, file in shared.files.items()}
    limits = {}
    read = Folder.read

    def reading(self, path, limit):
        limits[path] = limit
        return read(self, path, limit)

    monkeypatch.setattr(Folder, "read", reading)
    place.files(shared.model_copy(update={"files": files}))
    assert {name: limits[shared.file_path(name)] for name in MAX_FILE_BYTES} == MAX_FILE_BYTES
    place.files(shared)
    assert limits[shared.file_path("lut.json")] == (refs[0].path / "lut.json").stat().st_size


@pytest.mark.parametrize("claim", ["faster", "another device"])
def test_index_that_differs_from_the_lut_is_refused(refs, mine, tmp_path, claim):
    place = Repository(location(str(tmp_path / "place")), lambda _: None)
    shared, _ = push(place, refs[0].path)
    change = {"reference_ms": 0.1} if claim == "faster" else {"device": "iphone99"}
    false = shared.model_copy(update=change)
    (tmp_path / "place/index.json").unlink()
    (tmp_path / "place" / shared.path).unlink()
    place.location.create(false.path, false.model_dump_json().encode())
    with raises("index_differs"):
        pull(place, false.name, mine)
    assert mine.list() == []


def test_forged_lut_is_neither_pushed_nor_pulled(lut, place, mine, tmp_path):
    dearer = lut.entries[0].model_copy(
        update={"ms": lut.entries[0].ms + 1, "ci_high": lut.entries[0].ci_high + 1}
    )
    forged = LutStore([tmp_path / "forged"], lambda _: None).write(
        replace(lut, entries=(dearer, *lut.entries[1:]))
    )
    with raises("not_from_samples"):
        push(place, forged)
    place.push({name: (forged / name).read_bytes() for name in MAX_FILE_BYTES}, None)
    with raises("not_from_samples") as refused:
        pull(place, place.luts()[0].name, mine)
    assert one_line(refused)
    assert mine.list() == []
    unverified = pull(place, place.luts()[0].name, mine, verify=False)
    assert unverified.trust == "unverified, unsigned"


def test_unverified_lut_warns_until_verified(refs, place, tmp_path):
    messages = []
    mine = LutStore([tmp_path / "mine"], messages.append)
    push(place, refs[0].path)
    pulled = pull(place, refs[0].name, mine, verify=False)
    mine.load(refs[0].name)
    assert messages == [f"{refs[0].name}/v1 was pulled and is unverified; bench lut verify recomputes it"]
    assert note_verified(pulled.path, None) == "verified, unsigned"
    assert LutStore([tmp_path / "mine"], pytest.fail).load(refs[0].name)


def test_own_version_precedes_a_pulled_one(lut, refs, place, mine):
    own = mine.write(dated(lut, "2001-01-01"))
    before = own.joinpath("lut.json").read_bytes()
    name = refs[0].name
    push(place, refs[0].path)
    assert pull(place, name, mine).path == own.parent / "v2"
    assert own.joinpath("lut.json").read_bytes() == before
    assert mine.current(name).version == 1
    mine.pin(mine.resolve(f"{name}/v2"))
    assert mine.current(name).version == 2


def test_verified_version_precedes_an_unverified_one(lut, refs, place, mine, tmp_path):
    name = refs[0].name
    newer = LutStore([tmp_path / "newer"], lambda _: None).write(dated(lut, "2030-01-01"))
    push(place, refs[0].path)
    pull(place, name, mine)
    push(place, newer)
    unverified = pull(place, name, mine, verify=False)
    assert unverified.path.name == "v2"
    assert mine.current(name).version == 1
    note_verified(unverified.path, None)
    assert mine.current(name).version == 2


def test_concurrent_pushes(refs, tmp_path):
    """Another pushes between one's listing and its writing of index.json, which then lacks the other's."""

    class Interrupted(Folder):
        def replace(self, path, content):
            if not done:
                done.append(push(Repository(Folder("place", tmp_path / "place"), pytest.fail), refs[1].path))
            super().replace(path, content)

    done = []
    place = Repository(Interrupted("place", tmp_path / "place"), pytest.fail)
    push(place, refs[0].path)
    assert len(done) == 1
    index = json.loads((tmp_path / "place/index.json").read_text())
    assert [lut["device"] for lut in index["luts"]] == [lut.device for lut in place.luts()]
    assert len(index["luts"]) == 2


def test_interrupted_push_can_be_repeated(refs, place, mine, tmp_path, monkeypatch):
    create = Folder.create

    def dies(self, path, content):
        if path.startswith("index/"):
            raise KeyboardInterrupt
        return create(self, path, content)

    monkeypatch.setattr(Folder, "create", dies)
    with pytest.raises(KeyboardInterrupt):
        push(place, refs[0].path)
    assert place.luts() == []
    monkeypatch.setattr(Folder, "create", create)
    assert push(place, refs[0].path)[1] is True
    assert pull(place, refs[0].name, mine).new


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "blocktime-lut-index/2", "luts": []}'])
def test_damaged_index_falls_back_to_entries(refs, tmp_path, content):
    messages = []
    place = Repository(location(str(tmp_path / "place")), messages.append)
    push(place, refs[0].path)
    (tmp_path / "place/index.json").write_text(content)
    assert len(place.luts()) == 1
    assert "index.json is damaged" in messages[0]
    push(place, refs[1].path)
    assert len(json.loads((tmp_path / "place/index.json").read_text())["luts"]) == 2


def test_signature_is_valid_for_openssl(refs, place, mine, keys, tmp_path):
    private, public, stranger = keys
    own = LutStore([tmp_path / "own"], lambda _: None)
    shutil.copytree(refs[0].path, tmp_path / "own" / str(refs[0]))
    ref = own.list()[0]
    signature = sign_lut(ref, private)
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        public,
        "-rawin",
        "-in",
        ref.path / "lut.json",
    ]
    subprocess.run([*command, "-sigfile", signature], check=True, capture_output=True)
    push(place, ref.path)
    with raises("wrong_signature") as refused:
        pull(place, ref.name, mine, stranger)
    assert one_line(refused)
    pulled = pull(place, ref.name, mine)
    assert pulled.trust == "verified, signature not checked"
    assert note_verified(pulled.path, public).startswith("verified, signature valid (key ")


def test_unsigned_lut_is_refused_with_a_key(refs, place, mine, keys):
    push(place, refs[0].path)
    with raises("unsigned"):
        pull(place, refs[0].name, mine, keys[1])
    with raises("invalid_key"):
        pull(place, refs[0].name, mine, keys[0])
    assert mine.list() == []


def test_missing_cryptography_is_reported(refs, place, mine, keys, monkeypatch):
    push(place, refs[0].path)
    for name in ("cryptography.exceptions", "cryptography.hazmat.primitives"):
        monkeypatch.setitem(sys.modules, name, None)
    with raises("package_missing"):
        pull(place, refs[0].name, mine, keys[1])


@pytest.mark.parametrize(
    "url", ["ftp://host/luts", "s3:bucket", "luts.zip", "https://h/luts.tar.gz", "zip::file://x", "tar://a"]
)
def test_unsupported_place_is_refused(url):
    with raises("unsupported_url") as refused:
        location(url)
    assert one_line(refused)


def test_oversized_files_are_not_read(refs, place, mine, tmp_path):
    shared, _ = push(place, refs[0].path)
    with (tmp_path / "place" / shared.file_path("samples.parquet")).open("r+b") as file:
        file.truncate(1 << 40)
    with raises("too_large"):
        pull(place, shared.name, mine)
