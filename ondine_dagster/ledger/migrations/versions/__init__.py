"""One file per version of the schema; applied in order, never changed."""
