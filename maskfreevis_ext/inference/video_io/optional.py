"""PyAV, where it is installed: ``pip install 'maskfreevis_ext[video]'``."""

from __future__ import annotations

from typing import Any


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        return None
    return av


#: The module, or None. Its types are not checked, as they are not there for everyone.
av: Any = _import_av()
