"""Assertions of the service that have signed somebody in

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade():
    op.create_table('used_assertion',
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_used_assertion'))
    )
    op.create_index('ix_used_assertion_expires_at', 'used_assertion', ['expires_at'], unique=False)


def downgrade():
    op.drop_table('used_assertion')
