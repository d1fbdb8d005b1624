"""The wire protocol of protocol/PROTOCOL.md: frames, messages and the client."""
