"""What shared limits need: rates, ceiling and breaker of a provider; estimates; properties."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make `provider_state` anew (nothing wrote it before), and three tables."""
    op.drop_table("provider_state")
    op.create_table(
        "provider_state",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model_family", sa.Text(), nullable=False),
        sa.Column("next_request_at", sa.BigInteger(), nullable=True),
        sa.Column("next_token_at", sa.BigInteger(), nullable=True),
        sa.Column("day", sa.Text(), nullable=True),
        sa.Column("day_requests", sa.BigInteger(), nullable=True),
        sa.Column("day_tokens", sa.BigInteger(), nullable=True),
        sa.Column("ceiling", sa.Integer(), nullable=True),
        sa.Column("refused_in_flight", sa.Integer(), nullable=True),
        sa.Column("refused_at", sa.BigInteger(), nullable=True),
        sa.Column("good_answers", sa.Integer(), nullable=True),
        sa.Column("paused_until", sa.BigInteger(), nullable=True),
        sa.Column("recent", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("open_until", sa.BigInteger(), nullable=True),
        sa.Column("cooldown_ms", sa.Integer(), nullable=True),
        sa.Column("violated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("provider", "endpoint", "model_family"),
    )
    op.create_table(
        "provider_users",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("process", sa.LargeBinary(length=16), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model_family", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["process"], ["processes.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "estimates",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("run_scope", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("expected", sa.BigInteger(), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=False),
        sa.Column("most_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dataset", "run_scope"),
    )
    op.create_table(
        "properties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
