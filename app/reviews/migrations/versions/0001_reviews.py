"""Create the tables of reviews and assignments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.reviews.tables import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "reviews",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("detection_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("reviewer", sa.Text),
        sa.Column("key", sa.String(64)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("erased_at", UtcDateTime),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("ai_probability", sa.Float),
        sa.Column("verdict", sa.String(16)),
        sa.Column("manipulated", sa.Boolean),
        sa.Column("thresholds", sa.JSON(none_as_null=True)),
        sa.Column("model", sa.JSON(none_as_null=True)),
        sa.UniqueConstraint("team", "detection_id", "version", name="one_entry_per_version"),
    )
    op.create_index("reviews_by_time", "reviews", ["team", "created_at", "id"])
    op.create_index("reviews_by_age", "reviews", ["created_at"])
    op.create_table(
        "assignments",
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("detection_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("reviewer", sa.Text, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("team", "detection_id", name="one_assignment_per_detection"),
    )
    op.create_index("assignments_by_expiry", "assignments", ["expires_at"])


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("assignments")
    op.drop_table("reviews")
