"""Tests of ondine_dagster.spec."""
