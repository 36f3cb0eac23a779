"""What a user may declare: frozen pydantic models, no I/O, no Dagster."""

from __future__ import annotations

from ondine_dagster.spec.accept import AcceptList, AcceptPattern, AcceptRange
from ondine_dagster.spec.anthropic import AnthropicSettings
from ondine_dagster.spec.attachments import Document, Files, Image
from ondine_dagster.spec.azure import AzureCredential, AzureSettings
from ondine_dagster.spec.budgets import Budget
from ondine_dagster.spec.columns import (
    ERROR_COLUMNS,
    LINEAGE_COLUMNS,
    RESERVED_COLUMNS,
    SNAPSHOT_COLUMNS,
    same_column,
)
from ondine_dagster.spec.dataset import Dataset
from ondine_dagster.spec.fallback import Fallback
from ondine_dagster.spec.groq import GroqSettings
from ondine_dagster.spec.limits import Limits
from ondine_dagster.spec.llm import Llm
from ondine_dagster.spec.model_values import StructuredMode
from ondine_dagster.spec.openai import OpenAISettings
from ondine_dagster.spec.output import Output, OutputField, Repair
from ondine_dagster.spec.partitions import (
    NoPartitions,
    Partitions,
    TimePartitions,
    ValuePartitions,
)
from ondine_dagster.spec.prices import DeclaredPrices, DeclaredTier
from ondine_dagster.spec.privacy import Privacy
from ondine_dagster.spec.problems import FieldProblem, format_errors
from ondine_dagster.spec.prompt import Prompt
from ondine_dagster.spec.schedule import Schedule
from ondine_dagster.spec.source import Source

__all__ = [
    "ERROR_COLUMNS",
    "LINEAGE_COLUMNS",
    "RESERVED_COLUMNS",
    "SNAPSHOT_COLUMNS",
    "AcceptList",
    "AcceptPattern",
    "AcceptRange",
    "AnthropicSettings",
    "AzureCredential",
    "AzureSettings",
    "Budget",
    "Dataset",
    "DeclaredPrices",
    "DeclaredTier",
    "Document",
    "Fallback",
    "FieldProblem",
    "Files",
    "GroqSettings",
    "Image",
    "Limits",
    "Llm",
    "NoPartitions",
    "OpenAISettings",
    "Output",
    "OutputField",
    "Partitions",
    "Privacy",
    "Prompt",
    "Repair",
    "Schedule",
    "Source",
    "StructuredMode",
    "TimePartitions",
    "ValuePartitions",
    "format_errors",
    "same_column",
]
