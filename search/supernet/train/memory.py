"""Memory that a training step frees stays with the process, for the next step."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
"""From glibc's malloc.h."""

NEVER = -1


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed; whether it could be told so, which glibc alone can.

    Every step on a CPU allocates the same activations anew. By default glibc gives large ones back to the
    kernel, and the next step waits until each of their pages is mapped and cleared again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, NEVER))
