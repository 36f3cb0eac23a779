"""No file of the repository holds a key: the forms that providers give theirs are looked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
}
# as long as the real ones are: `sk-canary` of a test is none
KEYS = {
    "OpenAI": rb"sk-(?:proj|svcacct|admin|None)?-?[A-Za-z0-9_-]{40,}",
    "Anthropic": rb"sk-ant-[A-Za-z0-9_-]{40,}",
    "OpenRouter": rb"sk-or-v1-[0-9a-f]{40,}",
    "Groq": rb"gsk_[A-Za-z0-9]{40,}",
    "Hugging Face": rb"hf_[A-Za-z0-9]{30,}",
    "Google": rb"AIza[A-Za-z0-9_-]{35}",
    "AWS": rb"AKIA[0-9A-Z]{16}",
    "GitHub": rb"(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
    "Slack": rb"xox[abprs]-[A-Za-z0-9-]{20,}",
    "token": rb"eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}",
    "private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40,}",
    "URL": rb"https?://[^\s/:@\"'<>{}]+:[^\s/:@\"'<>{}]{12,}@[a-z0-9]",
}
ANY = re.compile(b"|".join(b"(?:%s)" % form for form in KEYS.values()))


def found_below(root: Path) -> Iterator[str]:
    """Yield `file: what` for every key in the files below `root`, the key itself cut short."""
    for path in root.rglob("*"):
        within = path.relative_to(root)
        if path.is_file() and NOT_OURS.isdisjoint(within.parts) and "data" not in within.parts[:1]:
            for match in ANY.finditer(path.read_bytes()):
                yield f"{within}: {match.group()[:8].decode()}..."


@pytest.mark.behaviour("A-1")
def test_no_file_of_the_repository_holds_a_key() -> None:
    assert list(found_below(ROOT)) == []


@pytest.mark.parametrize(
    "key",
    [
        "sk-" + "Ab1" * 16,
        "sk-proj-" + "x_Y-" * 20,
        "sk-ant-" + "api03-" + "q" * 90,
        "sk-or-v1-" + "0f" * 32,
        "gsk_" + "Zz9" * 17,
        "AKIA" + "ABCD1234" * 2,
        "ghp_" + "a1B2" * 9,
        "eyJ" + "hbGci" * 5 + ".eyJ" + "zdWIi" * 5 + "." + "c2ln" * 6,
        "-----BEGIN " + "RSA PRIVATE KEY-----\n" + "MIIE" * 12,
        "https://someone:" + "a-long-password@host/",
    ],
)
def test_a_key_would_be_found(tmp_path: Path, key: str) -> None:
    (tmp_path / "settings.py").write_text(f'KEY = "{key}"\n')
    (found,) = found_below(tmp_path)
    assert found.startswith("settings.py: ")
    assert key not in found
