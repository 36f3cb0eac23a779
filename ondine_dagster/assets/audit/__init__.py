"""Afterwards: the story of a row, the manifest of a run, replay and verify."""
