"""Which run asked, how often it had asked before, and what is to be sent to a trace host."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them; runs of before did not ask for traces."""
    op.add_column("attempts", sa.Column("run_id", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("number", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("attempts", sa.Column("traced", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE outbox SET exported = 2")
    waiting = sa.text("exported = 0")
    op.create_index(
        "outbox_waiting", "outbox", ["seq"], sqlite_where=waiting, postgresql_where=waiting
    )
    op.create_table(
        "traces",
        sa.Column("trace_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("run_scope", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=True),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.Column("exported", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_index(
        "traces_waiting", "traces", ["trace_id"], sqlite_where=waiting, postgresql_where=waiting
    )
