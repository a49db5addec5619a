"""Long attacks on the package: thousands of damaged inputs, and processes that are killed.

``python -m tests.faults.attack`` from a checkout (``make attack``) runs them all and prints a table
of what was tried, what held and what was lost. The test suite runs a few cases of each.
"""
