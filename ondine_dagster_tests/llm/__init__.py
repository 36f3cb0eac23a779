"""Tests of ondine_dagster.llm."""
