"""Declarations in YAML and Python, and the Dagster component that they make."""

from ondine_dagster.component.declarations import Declared, find_declaration, load_declaration
from ondine_dagster.component.llm_dataset import LLMDataset, dataset_definitions

__all__ = [
    "Declared",
    "LLMDataset",
    "dataset_definitions",
    "find_declaration",
    "load_declaration",
]
