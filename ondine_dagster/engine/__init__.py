"""Sends requests: keeps a provider as busy as its limits allow, and pays for nothing twice."""
