"""`bench lut push`, `pull`, `search`, `sign`: what they say and how they end."""

import json

import pytest

from tests.support.bench import answer, bench, refused


@pytest.fixture
def there(refs, tmp_path, monkeypatch):
    """A folder with both LUTs."""
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "mine"))
    url = str(tmp_path / "place")
    for ref in refs:
        printed = answer("lut", "push", ref.path, url)
        assert printed.startswith(f"{ref.name}/")
        assert printed.endswith(f" is now in {url}\n")
    return url


def test_search_pull_and_push(refs, there):
    rows = json.loads(answer("lut", "search", there, "--json"))
    assert [row["device"] for row in rows] == [ref.device for ref in refs]
    assert len(json.loads(answer("lut", "search", there, "OTHER", "toy", "--json"))) == 1
    done = json.loads(answer("lut", "pull", there, "other", "--json"))
    assert (done["trust"], done["new"]) == ("verified, unsigned", True)
    listed = json.loads(answer("lut", "list", "--json"))
    assert f"{refs[1].name}/v1" in [row["lut"] for row in listed]
    assert f"already in {there}" in answer("lut", "push", "other", there)


def test_unverified_lut_warns(refs, there):
    done = bench("lut", "pull", there, "other", "--no-verify")
    assert done.returncode == 0
    assert "unverified, unsigned" in done.stdout
    assert "warning: unverified" in done.stderr
    assert "is unverified" in bench("lut", "show", "other").stderr
    assert json.loads(answer("lut", "verify", "other", "--json"))["trust"] == "verified, unsigned"
    assert "unverified" not in bench("lut", "show", "other").stderr


def test_pull_checks_the_signature(refs, there, keys, tmp_path):
    private, public, stranger = keys
    answer("lut", "pull", there, "other")
    answer("lut", "sign", "other", "--key", private)
    assert answer("lut", "sign", "other", "--key", private), "the same again"
    answer("lut", "push", "other", there)
    answer("lut", "remove", f"{refs[1].name}/v1", "--yes")
    refused(bench("lut", "pull", there, "other", "--key", stranger), 6, "was rejected", "not valid")
    refused(bench("lut", "pull", there, "host", "--key", public), 6, "was rejected", "unsigned")
    refused(bench("lut", "pull", there, "other", "--key", private), 2, "not a public key")
    done = json.loads(answer("lut", "pull", there, "other", "--key", public, "--json"))
    assert done["trust"].startswith("verified, signature valid (key ")
    assert "signature valid" in answer("lut", "verify", "other", "--key", public)
    refused(bench("lut", "verify", "other", "--key", stranger), 6, "not valid")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search", "{there}", "pixel9"), ("no LUT has pixel9",)),
        (("push", "{lut}", "https://somewhere/luts"), ("read-only",)),
        (("search", "{there}/plcae"), ("plcae: no such folder",)),
        (("pull", "{there}/plcae", "host"), ("plcae: no such folder",)),
    ],
)
def test_bad_places_and_names(refs, there, arguments, words):
    given = [argument.format(there=there, lut=refs[0].path) for argument in arguments]
    refused(bench("lut", *given), 2, *words)
