"""Memory that an agent takes for one model, alone in it."""

from __future__ import annotations

from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.variant import Variant
from orchestrator.journal.usage import MemoryUse, memory_use
from orchestrator.measure.link import Link
from orchestrator.wire.errors import AgentError, DeviceError
from orchestrator.wire.model_file import ModelFile

CALLS = 3
"""Executions after which a runtime has what it takes: the first may still take some."""


def memory_of(device: Device, variant: Variant, file: ModelFile) -> MemoryUse | None:
    """Memory of a model; None where the device does not tell, or can't run it.

    An agent keeps what it has freed, and its peak never falls: one that has run other models tells too little.
    """
    link = Link(device, variant.runtime, variant.load_options)
    try:
        before = link.client.state()
        if before.agent_memory_bytes is None:
            return None
        handle = link.load(file).handle
        link.client.run([handle], [[0]] * CALLS)
        use = memory_use(before, [link.client.state()])
        link.client.unload(handle)
        return use
    except (AgentError, DeviceError):
        return None
    finally:
        link.drop()
