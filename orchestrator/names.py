"""One line about a name that nothing has, with those that come close."""

from __future__ import annotations

import difflib
from collections.abc import Collection

SHOWN = 5
"""Close names that are shown, and the most known names that are listed where none is close."""


def unknown(kind: str, name: str, known: Collection[str], further: str = "") -> str:
    """`unknown network 'x'; did you mean y?`, or the known names where none is like it.

    Args:
        kind: What it should have been the name of.
        name: What was given; cut to 80 characters.
        known: All names.
        further: What else may be given, or where all names are listed.
    """
    close = difflib.get_close_matches(name[:80], list(known), n=SHOWN, cutoff=0.6)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif len(known) <= 3 * SHOWN:
        hint = f"known: {', '.join(known)}"
    else:
        hint = "nothing has a name like it"
    return f"unknown {kind} {name[:80]!r}; {hint}" + (f" ({further})" if further else "")
