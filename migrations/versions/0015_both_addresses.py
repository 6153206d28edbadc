"""A change of address that is confirmed at both addresses, and the mail that asks the old one

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None

KINDS = (
    "'warning', 'reminder', 'last_call', 'deadline_moved', 'withdrawn', 'returned', 'receipt_keep', 'receipt_lapse', 'lapsed', "
    "'told', 'used_after_end', 'welcome_back', 'last_chance', 'erased', 'sign_in', 'erase_confirm', 'end_unclear', 'new_address', "
    "{old}'address_changed', 'campaign_ready', 'approve_by', 'needs_attention'"
)


def upgrade():
    op.add_column('magic_link', sa.Column('proven_at', sa.DateTime(timezone=True), nullable=True))
    _kinds("'old_address', ")


def downgrade():
    # A change that waits for its second address is asked for again: half a link opens nothing.
    op.execute("DELETE FROM message WHERE kind = 'old_address'")
    op.execute("UPDATE magic_link SET token_hash = NULL, new_address = NULL WHERE proven_at IS NOT NULL")
    _kinds('')
    op.drop_column('magic_link', 'proven_at')


def _kinds(old):
    # Nothing refers to a message by a foreign key, so that SQLite may copy and rename the table.
    with op.batch_alter_table('message') as message:
        message.drop_constraint(op.f('ck_message_kind'), type_='check')
        message.create_check_constraint(op.f('ck_message_kind'), f"kind IN ({KINDS.format(old=old)})")
