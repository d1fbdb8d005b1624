"""LUTs shared through huggingface_hub's client, against a fake of the hub. Nothing here has met the hub itself."""

import pytest
from huggingface_hub import constants

from luts.share.location import location
from luts.share.repository import Repository, pull, push
from tests.support.errors import raises
from tests.support.fake_hub import FakeHub, serving

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


def test_luts_go_through_the_hub_s_client(hub, refs, mine):
    place = Repository(location(URL), pytest.fail)
    assert place.luts() == []
    assert [push(place, ref.path)[1] for ref in (*refs, refs[0])] == [True, True, False]
    assert len(hub.files) == 2 * 5 + 1
    assert all(path.startswith("here/") for path in hub.files)
    assert [lut.device for lut in Repository(location(URL), pytest.fail).luts()] == [
        ref.device for ref in refs
    ]
    pulled = pull(place, refs[1].name, mine)
    assert pulled.trust == "verified, unsigned"
    assert (pulled.path / "samples.parquet").read_bytes() == (refs[1].path / "samples.parquet").read_bytes()


def test_what_is_there_is_not_committed_again(hub, refs):
    place = Repository(location(URL), pytest.fail)
    push(place, refs[0].path)
    commits = hub.commits
    push(place, refs[0].path)
    assert hub.commits == commits


def test_a_token_that_the_hub_refuses_is_one_line(hub, refs, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with raises("unreachable") as refused:
        push(Repository(location(URL), pytest.fail), refs[0].path)
    assert "\n" not in str(refused.value)
    assert hub.files == {}


def test_a_data_set_that_is_not_there_is_one_line(hub, refs):
    with raises("unreachable") as refused:
        push(Repository(location("hf://datasets/nobody/luts"), pytest.fail), refs[0].path)
    assert "\n" not in str(refused.value)
