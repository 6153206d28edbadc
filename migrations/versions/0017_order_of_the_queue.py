"""The index of the queue holds its whole order

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = '0017'
down_revision = '0016'
branch_labels = None
depends_on = None


def upgrade():
    _made_of(['priority', 'due_at', 'id'])


def downgrade():
    _made_of(['priority', 'due_at'])


def _made_of(columns):
    queued = sa.text("state = 'queued'")
    op.drop_index('ix_message_queued', 'message', if_exists=True)
    op.create_index('ix_message_queued', 'message', columns, unique=False, sqlite_where=queued, postgresql_where=queued)
