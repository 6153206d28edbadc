"""What is remembered of a billing provider, and until when an order is asked for

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade():
    op.add_column('billing_order', sa.Column('gives_up_at', sa.DateTime(timezone=True), nullable=True))
    op.create_table('billing_provider',
    sa.Column('source', sa.String(length=10), nullable=False),
    sa.Column('mode', sa.String(length=4), nullable=True),
    sa.Column('since', sa.DateTime(timezone=True), nullable=False),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('closed_digest', sa.String(length=64), nullable=True),
    sa.PrimaryKeyConstraint('source', name=op.f('pk_billing_provider'))
    )


def downgrade():
    op.drop_table('billing_provider')
    op.drop_column('billing_order', 'gives_up_at')
