"""Where things live and which keys exist: the only reader of the environment.

Owns the data folder, the addresses of ledger and lake, DAGSTER_HOME and the provider keys.
Everything else gets a `Settings` value and can be tested with an empty environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_data_dir
from pydantic import SecretStr

from ondine_dagster.errors import OndineError

DATA_DIR, DAGSTER_HOME = "ONDINE_DATA_DIR", "DAGSTER_HOME"
DEMO_BASE_URL = "ONDINE_DEMO_BASE_URL"  # read by the sample declaration
_NOT_SUPPORTED_YET = {
    "ONDINE_LEDGER_URL": "the ledger is SQLite in the data folder",
    "ONDINE_LAKE_URL": "the lake is a folder in the data folder",
    "ONDINE_BUDGET_USD_PER_DAY": "no budget can be declared",
    "ONDINE_BUDGETS": "no budget can be declared",
}
_KEY_ENDINGS = ("_API_KEY", "_API_TOKEN")
API_KEY_VARIABLES = {"openai_compatible": "OPENAI_COMPATIBLE_API_KEY"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The places of one installation (absolute paths) and its provider keys."""

    data_dir: Path
    dagster_home: Path
    api_keys: Mapping[str, SecretStr] = field(default_factory=dict)

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

    def api_key(self, provider: str) -> SecretStr | None:
        """Return the key of `provider`, or None where its variable is unset or empty."""
        return self.api_keys.get(provider)


def load_settings(start: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; look for the project from `start` (a file or folder) upwards.

    Raises OndineError where a variable asks for something that is not built yet: a budget or a
    database that is set and ignored would cost money.
    """
    env = os.environ if environ is None else environ
    for name, instead in _NOT_SUPPORTED_YET.items():
        if env.get(name):
            raise OndineError(f"{name} is not supported yet ({instead}). Unset it to go on.")
    data_dir = _data_dir(start, env)
    home = env.get(DAGSTER_HOME)
    return Settings(
        data_dir=data_dir,
        dagster_home=Path(home).expanduser().absolute() if home else data_dir / "dagster_home",
        api_keys={
            provider: SecretStr(env[variable])
            for provider, variable in API_KEY_VARIABLES.items()
            if env.get(variable)
        },
    )


def _data_dir(start: Path, env: Mapping[str, str]) -> Path:
    declared = env.get(DATA_DIR)
    if declared:
        return Path(declared).expanduser().absolute()
    root = find_project_root(start)
    return root / "data" if root else Path(user_data_dir("ondine_dagster")).absolute()


def demo_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without keys and without a Dagster of one's own, for the demo."""
    env = os.environ if environ is None else environ
    return {
        name: value
        for name, value in env.items()
        if not name.upper().endswith(_KEY_ENDINGS) and name not in (DAGSTER_HOME, DEMO_BASE_URL)
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
