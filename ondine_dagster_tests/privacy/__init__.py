"""Tests of ondine_dagster.privacy."""
