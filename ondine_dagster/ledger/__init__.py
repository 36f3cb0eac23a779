"""What was paid: identity, schema, store, single-flight, payloads.

The ledger is the memory of the product: an answer that it holds is never asked for again.
"""
