"""The first request of every connection: whether it is a hello, and who says it."""

from __future__ import annotations

import hmac
from typing import Any

from pydantic import ValidationError

from luts.format.messages import first_problem
from orchestrator.wire.errors import OpError
from orchestrator.wire.fields import PROTOCOL_VERSION
from orchestrator.wire.requests import HelloRequest


def read_hello(header: dict[str, Any]) -> HelloRequest:
    """The hello in a connection's first header. OpError where it is another request, or breaks its schema."""
    if header.get("op") != "hello":
        raise OpError("unauthorized", "say hello first", closes=True)
    try:
        return HelloRequest.model_validate(header)
    except ValidationError as error:
        raise OpError("bad_request", f"hello: {first_problem(error)}", closes=True) from None


def refusal_of(hello: HelloRequest, token: str) -> OpError | None:
    """Why whoever says this hello is not served; None where the token is right. The token is checked first."""
    if not hmac.compare_digest(hello.token.encode(errors="replace"), token.encode()):
        return OpError(
            "unauthorized", "wrong token; take the one that the agent was started with", closes=True
        )
    if hello.protocol != PROTOCOL_VERSION:
        return OpError(
            "protocol_version",
            f"this agent speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}; "
            "install the same version of blocktime on both sides",
            closes=True,
        )
    return None
