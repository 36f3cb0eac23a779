"""The stages of a dataset as Dagster assets, one file each, in the order the data flows."""
