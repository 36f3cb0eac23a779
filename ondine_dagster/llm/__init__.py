"""Providers: requests and responses as pure functions; errors, prices, structured output.

No I/O and no Dagster in this room.
"""
