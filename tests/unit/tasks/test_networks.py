"""Networks as a caller may give them."""

import random

from luts.format.errors import UsageError
from orchestrator.tasks.networks import Network, at_resolution, by_name, named_network
from search.spaces import get_arch, get_space, list_published
from tests.support.errors import raises


def test_networks_go_by_their_names(tmp_path) -> None:
    paper = get_arch("autovit-xxs-paper")
    path = tmp_path / "mine.json"
    path.write_text(paper.to_json())
    published = next(iter(list_published().values()))
    given: list[Network] = ["autovit-xxs-paper", "timm:resnet18", str(path), published, paper]
    assert by_name(given) == {
        "autovit-xxs-paper": paper,
        "timm:resnet18": "timm:resnet18",
        str(path): paper,
        published.name: published,
    }
    other = get_space("autovit-nano").sample(random.Random(0))
    assert by_name(other) == {other.digest: other}
    assert by_name({"a": paper, "b": "timm:resnet18"}) == {"a": paper, "b": "timm:resnet18"}


def test_one_network_needs_no_list() -> None:
    assert by_name("autovit-xxs-paper") == {"autovit-xxs-paper": get_arch("autovit-xxs-paper")}


def test_a_name_that_no_network_has() -> None:
    with raises("unknown_network", UsageError):
        by_name("nosuch")


def test_networks_of_timm_take_any_resolution_until_they_are_exported() -> None:
    assert at_resolution("a", named_network("timm:resnet18@64"), 96) == "timm:resnet18@96"
    assert at_resolution("a", "timm:resnet18@64", None) == "timm:resnet18@64"
