"""The pace of billing orders, and payments that are declined

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table('billing_pace',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('next_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_billing_pace'))
    )
    op.add_column('billing_order', sa.Column('ended_before', sa.JSON(), nullable=True))
    op.add_column('billing_order', sa.Column('pay_at', sa.Text(), nullable=True))
    op.drop_index('ix_billing_order_due', table_name='billing_order')
    op.create_index('ix_billing_order_due', 'billing_order', ['due_at', 'id'], unique=False, sqlite_where=sa.text("state IN ('queued', 'working')"), postgresql_where=sa.text("state IN ('queued', 'working')"))
