"""The base of every error that a user can cause and fix."""

from __future__ import annotations


class OndineError(Exception):
    """Something that the person who reads it can fix: the message says what and how.

    The command line prints the message without a traceback.
    """
