"""Plain implementations of the formulas: slow, easy to check, and independent of the package.

Tests compare the package with them, and the benchmarks measure against them. The one thing that
both share is the conversion from RGB to Lab (``maskfreevis_ext.ops.color``).
"""
