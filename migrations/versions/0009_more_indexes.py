"""Finding members by their reference at the provider, and mails by their link

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade():
    billed, linked = sa.text('billing_ref IS NOT NULL'), sa.text('magic_link_id IS NOT NULL')
    op.create_index('ix_member_billing_ref', 'member', ['billing_ref'], unique=False, sqlite_where=billed, postgresql_where=billed)
    op.create_index('ix_message_magic_link_id', 'message', ['magic_link_id'], unique=False, sqlite_where=linked, postgresql_where=linked)


def downgrade():
    op.drop_index('ix_message_magic_link_id', table_name='message')
    op.drop_index('ix_member_billing_ref', table_name='member')
