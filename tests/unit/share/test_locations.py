"""LUTs shared through S3, a web server and the client of the Hugging Face hub; all servers run on this machine."""

import contextlib
import functools
import gzip
import http.server
import threading
from pathlib import Path

import boto3
import pytest
from huggingface_hub import constants
from moto.server import ThreadedMotoServer

from luts.share.location import location
from luts.share.repository import Repository, pull, push
from tests.support.errors import raises
from tests.support.fake_hub import FakeHub, serving


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


def test_endless_stream_is_cut(web, monkeypatch):
    monkeypatch.setattr("luts.share.repository.MAX_INDEX_BYTES", 1 << 20)
    with raises("too_large"):
        Repository(location(f"{web}/bomb"), pytest.fail).luts()


URL = "hf://datasets/user/luts/here"


@pytest.fixture
def hub(monkeypatch):
    with serving(FakeHub("hf_testing")) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template[template.index("/{repo_id}") :]
        )
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def test_present_lut_is_not_committed_again(hub, refs):
    place = Repository(location(URL), pytest.fail)
    push(place, refs[0].path)
    commits = hub.commits
    push(place, refs[0].path)
    assert hub.commits == commits


@pytest.mark.parametrize("url", ["s3://luts/shared/here", URL])
def test_luts_are_pushed_and_pulled(s3, hub, refs, mine, url):
    place = Repository(location(url), pytest.fail)
    assert place.luts() == []
    assert [push(place, ref.path)[1] for ref in (*refs, refs[0])] == [True, True, False]
    assert [lut.device for lut in Repository(location(url), pytest.fail).luts()] == [
        ref.device for ref in refs
    ]
    pulled = pull(place, refs[1].name, mine)
    assert pulled.trust == "verified, unsigned"
    for name in ("lut.json", "samples.parquet"):
        assert (pulled.path / name).read_bytes() == (refs[1].path / name).read_bytes()
    files = [item["Key"] for item in s3.list_objects_v2(Bucket="luts").get("Contents", ())]
    files = [path for path in files if path.startswith("shared/here/")] or list(hub.files)
    assert len(files) == 2 * 5 + 1


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("s3://nothing/here", "hf_testing"),
        ("http://127.0.0.1:9/luts", "hf_testing"),
        (URL, "hf_other"),
        ("hf://datasets/nobody/luts", "hf_testing"),
    ],
)
def test_unreachable_place_is_reported_in_one_line(s3, hub, refs, monkeypatch, url, token):
    monkeypatch.setenv("HF_TOKEN", token)
    place = Repository(location(url), pytest.fail)
    with raises("unreachable") as refused:
        place.luts() if url.startswith("http:") else push(place, refs[0].path)
    assert "\n" not in str(refused.value)
    assert hub.files == {}
