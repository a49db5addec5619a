"""Generated videos in four levels of difficulty, with the visible mask of every object.

``config``: the settings. ``outlines``, ``textures``, ``photographs``, ``motion``: what objects and
ground look like and how they move. ``scene``: draws them. ``levels``: chooses them at random.
``dataset``: writes the files.
"""

from __future__ import annotations

from maskfreevis_ext.data.synthetic.config import CLASS_NAMES, MAX_LEVEL, SyntheticConfig
from maskfreevis_ext.data.synthetic.dataset import make_synthetic, render_video

__all__ = ["CLASS_NAMES", "MAX_LEVEL", "SyntheticConfig", "make_synthetic", "render_video"]
