"""Tests of ondine_dagster.storage."""
