"""The base of every error that a user can cause and fix."""

from __future__ import annotations

import errno


class OndineError(Exception):
    """Something that the person who reads it can fix: the message says what and how.

    The command line prints the message without a traceback.
    """


# a full disk, a folder that may not be written to: no bug of ours
_FOR_A_PERSON = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def for_a_person(error: BaseException) -> str | None:
    """Return what a person can mend, in a sentence; None for what is our own bug."""
    if isinstance(error, OndineError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _FOR_A_PERSON:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}."
    return None
