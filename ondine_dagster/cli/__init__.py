"""The command line, `ondine-dagster`: thin commands over functions that tests can call."""
