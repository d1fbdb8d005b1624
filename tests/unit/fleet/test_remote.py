"""A client by way of an actor has what measuring uses of a client."""

import inspect

import pytest

from orchestrator.fleet.remote import RemoteClient
from orchestrator.wire.client import AgentClient


@pytest.mark.parametrize("method", ["hello", "state", "load", "placement", "unload", "run", "close"])
def test_it_takes_what_a_client_takes(method):
    asked = []
    client = RemoteClient(lambda *question: asked.append(question))
    own = list(inspect.signature(getattr(AgentClient, method)).parameters.values())[1:]
    getattr(client, method)(*range(len(own)))
    assert len(asked) == 1
