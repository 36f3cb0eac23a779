"""Benchmarks: ratios measured side by side in one run. `python -m benchmarks` runs them all.

They need nothing but the project, except for the comparison with Ondine (node, and the folder
`../shared/bench` beside the repository), which is skipped with the reason where that is absent.
"""
