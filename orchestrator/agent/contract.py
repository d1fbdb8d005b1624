"""What an agent and the one who starts it agree on. Imports nothing, so that a client needs no runtime."""

from __future__ import annotations

TOKEN_VARIABLE = "BLOCKTIME_TOKEN"
ALLOW_VARIABLE = "BLOCKTIME_ALLOW"
LOOPBACK = "127.0.0.1"
PHONE_PORT = 47613
