"""Measurements of the package beside a literal implementation of the same formulas.

``python tools/benchmark.py`` or ``python -m benchmarks`` from a checkout; not installed.

Shape letters: B clips, T frames, Q queries, C classes, D channels, L decoder outputs, N objects of
a clip, E frame pairs, (H, W) padded input, (h, w) map of the masks at stride 4.
"""
