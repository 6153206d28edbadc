"""What members who are asked have paid

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.add_column('member_case', sa.Column('paid_minor', INTEGER, nullable=True))
    op.add_column('member_case', sa.Column('paid_currency', sa.String(length=3), nullable=True))
    op.add_column('member_case', sa.Column('paid_asked_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index('ix_member_case_paid_asked_at', 'member_case', ['paid_asked_at'], unique=False, sqlite_where=sa.text('closed_at IS NULL'), postgresql_where=sa.text('closed_at IS NULL'))


def downgrade():
    op.drop_index('ix_member_case_paid_asked_at', table_name='member_case')
    op.drop_column('member_case', 'paid_asked_at')
    op.drop_column('member_case', 'paid_currency')
    op.drop_column('member_case', 'paid_minor')
