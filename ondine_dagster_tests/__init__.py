"""Tests of ondine_dagster, in the order of its rooms; end_to_end/ runs the whole product."""
