"""Tests of observe/."""
