"""Experiments: a grid of configs and seeds is trained, collected and drawn.

``python tools/experiment.py`` or ``python -m experiments`` from a checkout; not installed.
"""

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)
