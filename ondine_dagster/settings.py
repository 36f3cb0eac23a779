"""Where things live, which keys exist, what all may spend: the only reader of the environment.

Owns the data folder, the addresses of ledger and lake, DAGSTER_HOME, the provider keys and the
text of the budgets over all datasets (`spec.budgets` reads it).
Everything else gets a `Settings` value and can be tested with an empty environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from platformdirs import user_data_dir
from pydantic import SecretStr

from ondine_dagster.errors import OndineError

DATA_DIR, DAGSTER_HOME = "ONDINE_DATA_DIR", "DAGSTER_HOME"
DEMO_BASE_URL = "ONDINE_DEMO_BASE_URL"  # read by the sample declaration
BUDGET_USD_PER_DAY, BUDGETS = "ONDINE_BUDGET_USD_PER_DAY", "ONDINE_BUDGETS"
PRESETS = "ONDINE_PRESETS"  # the file of a project's presets
_NOT_SUPPORTED_YET = {
    "ONDINE_LEDGER_URL": "the ledger is SQLite in the data folder",
    "ONDINE_LAKE_URL": "the lake is a folder in the data folder",
}
TRACES = "ONDINE_TRACES"  # what it can be is said in `observe.destination`
ENCRYPTION_KEY, OLD_ENCRYPTION_KEY = "ONDINE_ENCRYPTION_KEY", "ONDINE_OLD_ENCRYPTION_KEY"
ENCRYPTION_SCOPE = "ONDINE_ENCRYPTION_SCOPE"
_SHORTEST_KEY = 16  # characters
_NOT_FOR_THE_DEMO = (
    DAGSTER_HOME,
    DEMO_BASE_URL,
    BUDGET_USD_PER_DAY,
    BUDGETS,
    TRACES,
    ENCRYPTION_KEY,
    OLD_ENCRYPTION_KEY,
    ENCRYPTION_SCOPE,
)
OBSERVER = "ONDINE_OBSERVER"  # module:Class, told of what happens in runs
# level and form of the lines that runs log; `assets.stage` says what they can be
LOG_LEVEL, LOG_FORMAT = "ONDINE_LOG_LEVEL", "ONDINE_LOG_FORMAT"
_BETWEEN_KEYS = re.compile(r"[,\s]+", re.ASCII)
_KEY_ENDINGS = ("_API_KEY", "_API_TOKEN")


@dataclass(frozen=True, slots=True)
class Settings:
    """The places of one installation (absolute paths), its provider keys and its budgets.

    `budget_usd_per_day` and `budgets` (JSON) are as they stand in the environment, None where they
    are unset or empty. `presets` is the file that the environment names, None where it names none.
    """

    data_dir: Path
    dagster_home: Path
    budget_usd_per_day: str | None = None
    budgets: str | None = None
    dagster_home_is_set: bool = False
    presets: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def lake_root(self) -> Path:
        """Return the folder of the lake."""
        return self.data_dir / "lake"

    @property
    def ledger_path(self) -> Path:
        """Return the SQLite file of the ledger."""
        return self.data_dir / "ledger.sqlite"

    @property
    def own_dagster_home(self) -> Path:
        """Return where Dagster's records go unless DAGSTER_HOME says otherwise."""
        return self.data_dir / "dagster_home"

    def variable(self, name: str) -> str | None:
        """Return the value of a variable without the space round it, None where it is empty."""
        return self.environ.get(name, "").strip() or None

    def keys_in(self, variable: str | None) -> tuple[SecretStr, ...]:
        """Return the API keys in a variable, each once; none where it is unset or empty.

        Raises OndineError for a key that no request can carry.
        """
        return _keys(variable, self.environ.get(variable, "")) if variable else ()

    def headers_in(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the secret values of headers, by name, from the variables that hold them.

        Raises OndineError where one is not set, or holds what no header can carry.
        """
        return {name: self._header(name, variable) for name, variable in variables.items()}

    def _header(self, name: str, variable: str) -> str:
        value = self.environ.get(variable, "").strip()
        if not value:
            raise OndineError(f"{variable} is not set: llm.header_variables sends it as {name}")
        _refuse_unsendable(value, variable)
        return value


def load_settings(start: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; look for the project from `start` (a file or folder) upwards.

    Raises OndineError where a variable asks for something that is not built yet: a database that
    is set and ignored would cost money.
    """
    env = os.environ if environ is None else environ
    for name, instead in _NOT_SUPPORTED_YET.items():
        if env.get(name):
            raise OndineError(f"{name} is not supported yet ({instead}). Unset it to go on.")
    data_dir = _data_dir(start, env)
    home, presets = env.get(DAGSTER_HOME), env.get(PRESETS)
    return Settings(
        data_dir=data_dir,
        dagster_home=Path(home).expanduser().absolute() if home else data_dir / "dagster_home",
        budget_usd_per_day=env.get(BUDGET_USD_PER_DAY) or None,
        budgets=env.get(BUDGETS) or None,
        dagster_home_is_set=bool(home),
        presets=Path(presets).expanduser().absolute() if presets else None,
        environ=env,
    )


class EncryptionScope(StrEnum):
    """Which texts are encrypted: prompts and answers, or answers."""

    ALL = "all"
    RESPONSES_ONLY = "responses_only"


@dataclass(frozen=True, slots=True)
class EncryptionKeys:
    """What seals texts, and what sealed them before; None where it is unset."""

    current: SecretStr | None = None
    old: SecretStr | None = None
    scope: EncryptionScope = EncryptionScope.ALL


def encryption_keys(environ: Mapping[str, str] | None = None) -> EncryptionKeys:
    """Return the keys that texts on the disk are encrypted with.

    Raises OndineError for a key that is too short, or set to nothing: it would be no protection.
    And for a scope that there is not, or without a key.
    """
    env = os.environ if environ is None else environ
    current, old = (_long_key(env, name) for name in (ENCRYPTION_KEY, OLD_ENCRYPTION_KEY))
    scope = env.get(ENCRYPTION_SCOPE, "").strip()
    if not scope:
        return EncryptionKeys(current, old)
    if scope not in list(EncryptionScope):
        raise OndineError(
            f"{ENCRYPTION_SCOPE} is {scope!r}; it can be {' or '.join(EncryptionScope)}."
        )
    if current is None and old is None:
        raise OndineError(
            f"{ENCRYPTION_SCOPE} is set, and {ENCRYPTION_KEY} is not: nothing would be encrypted. "
            "Set the key. To go on without encryption, unset both."
        )
    return EncryptionKeys(current, old, EncryptionScope(scope))


def _long_key(env: Mapping[str, str], name: str) -> SecretStr | None:
    if name not in env:
        return None
    key = env[name].strip()
    if len(key) < _SHORTEST_KEY:
        raise OndineError(
            f"{name} has {len(key)} characters, and needs {_SHORTEST_KEY} at least. Make a key: "
            "openssl rand -base64 32. To go on without encryption, unset it."
        )
    return SecretStr(key)


def _keys(variable: str, value: str) -> tuple[SecretStr, ...]:
    """Return the keys in `value`, each once. A refusal names a key by its place only."""
    keys = [one for one in _BETWEEN_KEYS.split(value) if one]
    for place, key in enumerate(keys, 1):
        _refuse_unsendable(key, f"Key {place} of {len(keys)} in {variable}")
    return tuple(map(SecretStr, dict.fromkeys(keys)))


def _refuse_unsendable(value: str, what: str) -> None:
    if not (value.isascii() and value.isprintable()):
        raise OndineError(
            f"{what} holds a control character or one that is not ASCII, which no HTTP header can "
            "carry. Copy it anew."
        )


def _data_dir(start: Path, env: Mapping[str, str]) -> Path:
    declared = env.get(DATA_DIR)
    if declared:
        return Path(declared).expanduser().absolute()
    root = find_project_root(start)
    return root / "data" if root else Path(user_data_dir("ondine_dagster")).absolute()


def demo_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without what is one's own, for the demo.

    Keys, a Dagster, and budgets, which are for real money.
    """
    env = os.environ if environ is None else environ
    return {
        name: value
        for name, value in env.items()
        if not name.upper().endswith(_KEY_ENDINGS) and name not in _NOT_FOR_THE_DEMO
    }


def find_project_root(start: Path) -> Path | None:
    """Return the nearest folder at or above `start` whose pyproject.toml has [tool.dg]."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file() and _is_dg_project(folder / "pyproject.toml"):
            return folder
    return None


def _is_dg_project(pyproject: Path) -> bool:
    try:
        tool = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise OndineError(f"{pyproject} is not valid TOML: {error}") from error
    return "dg" in tool
