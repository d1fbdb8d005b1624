"""The host agent: loads and times models on the machine it runs on, behind protocol/PROTOCOL.md."""
