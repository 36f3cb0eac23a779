"""Where files may be: a path, the pattern of several, a folder, or an address in an object store.

Pure: says what a text means, and looks at no folder.
"""

from __future__ import annotations

import re
from glob import has_magic

from ondine_dagster.spec.problems import shown
from ondine_dagster.spec.source_formats import ENDINGS, file_format

# By the beginning of an address: the package that reads there, and our extra that brings it.
OBJECT_STORES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure_storage"),
    "abfs": ("adlfs", "azure_storage"),
    "abfss": ("adlfs", "azure_storage"),
    "memory": ("fsspec", ""),  # this process's own, for tests
}
_WITH_SECRET = re.compile(r"://[^/]*:[^/]*@|[?&](sig|signature|token|X-Amz-\w+)=", re.IGNORECASE)


def is_address(path: str) -> bool:
    """Return whether this is an address in an object store, and no path of this machine."""
    return "://" in path


def is_pattern(path: str) -> bool:
    """Return whether this stands for several files: it has wildcards, or is a folder."""
    return path.endswith("/") or has_magic(path)


def files_in(path: str) -> str:
    """Return the pattern of the files that a path or address stands for."""
    return f"{path}*" if path.endswith("/") else path


def readable_files(path: str) -> str:
    """Return the path; raises ValueError where no file there could be read."""
    if is_address(path):
        if _WITH_SECRET.search(path):
            raise ValueError(
                "holds a password or a signature; remove it: the environment tells who you are, "
                "as the package of the store documents it"
            )
        if path.partition("://")[0] not in OBJECT_STORES:
            stores = ", ".join(f"{scheme}://" for scheme in OBJECT_STORES if scheme != "memory")
            raise ValueError(f"is {shown(path)}; of addresses, it must be one of {stores}")
    if not path.endswith("/") and file_format(path) is None:
        raise ValueError(
            f"is {shown(path)}; files of this kind are not supported: it must end in {ENDINGS}; "
            "or in / for all files of a folder"
        )
    return path
