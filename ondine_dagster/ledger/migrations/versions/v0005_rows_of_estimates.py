"""How many rows a run was expected to ask, and asked: a request may carry several."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add them; of earlier runs nobody knows."""
    for name in ("rows", "asked"):
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("estimates", column)
