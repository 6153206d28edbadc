"""Refunds of the rest of a paid period, and what went back

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.add_column('billing_order', sa.Column('at_once', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('billing_order', sa.Column('paid_through', sa.DateTime(timezone=True), nullable=True))
    op.add_column('billing_order', sa.Column('refunded_minor', INTEGER, nullable=True))
    op.add_column('local_call', sa.Column('refunded_minor', INTEGER, nullable=True))
    op.add_column('local_call', sa.Column('currency', sa.String(length=3), nullable=True))


def downgrade():
    op.drop_column('local_call', 'currency')
    op.drop_column('local_call', 'refunded_minor')
    op.drop_column('billing_order', 'refunded_minor')
    op.drop_column('billing_order', 'paid_through')
    op.drop_column('billing_order', 'at_once')
