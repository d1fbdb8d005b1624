"""LUTs shared through moto's S3 and a plain web server: people's clients, servers of this machine."""

import contextlib
import functools
import gzip
import http.server
import threading
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from luts.share.location import location
from luts.share.repository import Repository, pull, push
from tests.support.errors import raises


@pytest.fixture(scope="module")
def s3():
    """A bucket `luts`; yields its client."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="luts")
        yield client
    server.stop()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server of files; it lists folders, which nothing relies on, and `/bomb/` is gzip of zeros."""

    def do_GET(self):
        if "/bomb/" not in self.path or not self.path.endswith("index.json"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        zeros = gzip.compress(bytes(16 << 20))
        with contextlib.suppress(OSError):
            for _ in range(64):
                self.wfile.write(zeros)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def web(tmp_path):
    """URL of a server of `tmp_path`."""
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_luts_go_through_s3(s3, refs, mine):
    place = Repository(location("s3://luts/shared/here"), pytest.fail)
    assert place.luts() == []
    assert [push(place, ref.path)[1] for ref in (*refs, refs[0])] == [True, True, False]
    assert [lut.device for lut in place.luts()] == [ref.device for ref in refs]
    pulled = pull(place, refs[1].name, mine)
    assert pulled.trust == "verified, unsigned"
    assert (pulled.path / "lut.json").read_bytes() == (refs[1].path / "lut.json").read_bytes()
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="luts")["Contents"]]
    assert len(keys) == 2 * 5 + 1
    assert all(key.startswith("shared/here/") for key in keys)


def test_s3_refuses_to_overwrite(s3, refs):
    place = Repository(location("s3://luts/kept"), pytest.fail)
    shared, _ = push(place, refs[0].path)
    name = f"kept/{shared.file_path('models.csv')}"
    s3.put_object(Bucket="luts", Key=name, Body=b"others'")
    with raises("other_content_exists"):
        push(place, refs[0].path)
    assert s3.get_object(Bucket="luts", Key=name)["Body"].read() == b"others'"


def test_large_objects_are_not_read(s3, refs, mine):
    place = Repository(location("s3://luts/large"), pytest.fail)
    shared, _ = push(place, refs[0].path)
    s3.put_object(Bucket="luts", Key=f"large/{shared.file_path('models.csv')}", Body=bytes(1 << 20))
    with raises("too_large"):
        pull(place, shared.name, mine)
    assert mine.list() == []


def test_a_bucket_that_is_not_there_is_one_line(s3, refs):
    with raises("unreachable") as refused:
        push(Repository(location("s3://nothing/here"), pytest.fail), refs[0].path)
    assert "\n" not in str(refused.value)


def test_pull_from_a_web_server(web, refs, place, mine):
    for ref in refs:
        push(place, ref.path)
    remote = Repository(location(f"{web}/place"), pytest.fail)
    assert remote.luts() == place.luts()
    assert pull(remote, refs[0].name, mine).trust == "verified, unsigned"
    with raises("read_only_repository"):
        push(remote, refs[0].path)


def test_web_server_without_luts_or_files(web, refs, place, mine, tmp_path):
    with raises("no_index"):
        Repository(location(web), pytest.fail).luts()
    shared, _ = push(place, refs[0].path)
    Path(tmp_path / "place" / shared.file_path("samples.parquet")).unlink()
    with raises("shared_file_damaged"):
        pull(Repository(location(f"{web}/place"), pytest.fail), shared.name, mine)
    assert mine.list() == []


def test_a_stream_that_unpacks_without_end_is_cut(web, monkeypatch):
    monkeypatch.setattr("luts.share.repository.MAX_INDEX_BYTES", 1 << 20)
    with raises("too_large"):
        Repository(location(f"{web}/bomb"), pytest.fail).luts()


def test_nobody_at_the_address_is_one_line():
    with raises("unreachable") as refused:
        Repository(location("http://127.0.0.1:9/luts"), pytest.fail).luts()
    assert "\n" not in str(refused.value)
