"""Standalone torch networks, built from blocks."""

from search.networks.network import Network, build_block, build_group, build_network

__all__ = ["Network", "build_block", "build_group", "build_network"]
