"""What leaves for people who watch: made from the ledger, never on the way of a request."""
