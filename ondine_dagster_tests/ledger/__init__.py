"""Tests of ondine_dagster.ledger."""
