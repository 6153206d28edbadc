"""Which wording a mail was rendered with

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('message', sa.Column('wording_version', sa.String(length=20), nullable=True))
