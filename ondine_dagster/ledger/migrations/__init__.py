"""The versions of the ledger's schema, one file each."""
