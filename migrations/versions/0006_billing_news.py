"""Word from a billing provider, and how far an import from one has come

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade():
    op.create_table('billing_news',
    sa.Column('billing_ref', sa.String(length=200), nullable=False),
    sa.Column('heard', INTEGER, server_default='1', nullable=False),
    sa.Column('looked', INTEGER, server_default='0', nullable=False),
    sa.Column('due_at', INSTANT, nullable=False),
    sa.Column('attempts', INTEGER, server_default='0', nullable=False),
    sa.Column('lease_token', sa.String(length=32), nullable=True),
    sa.Column('lease_until', INSTANT, nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('billing_ref', name=op.f('pk_billing_news'))
    )
    op.create_index('ix_billing_news_due_at', 'billing_news', ['due_at'], unique=False, sqlite_where=sa.text("looked < heard"), postgresql_where=sa.text("looked < heard"))
    op.create_table('import_cursor',
    sa.Column('source', sa.String(length=20), nullable=False),
    sa.Column('cursor', sa.String(length=200), nullable=False),
    sa.Column('at', INSTANT, nullable=False),
    sa.PrimaryKeyConstraint('source', name=op.f('pk_import_cursor'))
    )
