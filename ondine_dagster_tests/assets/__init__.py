"""The stages of a dataset, run by Dagster."""
