"""Books that charge on schedule, and what a provider said when asked again

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade():
    op.add_column('billing_order', sa.Column('read_back', sa.JSON(), nullable=True))
    op.add_column('local_subscription', sa.Column('anchor_at', INSTANT, nullable=True))
    op.add_column('local_subscription', sa.Column('ended_at', INSTANT, nullable=True))
    op.add_column('local_subscription', sa.Column('price_minor', INTEGER, nullable=True))
    op.add_column('local_subscription', sa.Column('currency', sa.String(length=3), nullable=True))
    op.add_column('local_subscription', sa.Column('billing_interval', sa.String(length=10), nullable=True))
    op.add_column('local_charge', sa.Column('period_end', INSTANT, nullable=True))
    op.add_column('local_charge', sa.Column('refunded_minor', INTEGER, nullable=True))
    op.execute('UPDATE local_charge SET refunded_minor = amount_minor WHERE refunded_at IS NOT NULL')
