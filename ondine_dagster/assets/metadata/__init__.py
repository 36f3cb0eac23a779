"""What Dagster shows of results: metadata, types, constraints, column lineage."""
