"""Members whom an app store or a partner bills, and the mail that tells them

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None

KINDS = (
    "'warning', 'reminder', 'last_call', 'deadline_moved', 'withdrawn', 'returned', 'receipt_keep', 'receipt_lapse', 'lapsed', "
    "{told}'used_after_end', 'welcome_back', 'last_chance', 'erased', 'sign_in', 'erase_confirm', 'end_unclear', 'new_address', "
    "'address_changed', 'campaign_ready', 'approve_by', 'needs_attention'"
)


def upgrade():
    op.add_column('member', sa.Column('billed_by', sa.String(length=50), nullable=True))
    _kinds("'told', ")


def downgrade():
    op.execute("DELETE FROM message WHERE kind = 'told'")
    _kinds('')
    op.drop_column('member', 'billed_by')


def _kinds(told):
    # Nothing refers to a message by a foreign key, so that SQLite may copy and rename the table.
    with op.batch_alter_table('message') as message:
        message.drop_constraint(op.f('ck_message_kind'), type_='check')
        message.create_check_constraint(op.f('ck_message_kind'), f"kind IN ({KINDS.format(told=told)})")
