"""Tests of ondine_dagster.engine."""
