"""Whether a warning said that silence ends nothing

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None


def upgrade():
    op.add_column('member_case', sa.Column('told_it_continues', sa.Boolean(), nullable=True))
    # Whom a store bills was told so; by which setting the others were warned, their campaign remembers.
    keeps = "json_extract(policy, '$.on_silence')" if op.get_bind().dialect.name == 'sqlite' else "policy ->> 'on_silence'"
    op.execute(
        "UPDATE member_case SET told_it_continues = true WHERE closed_at IS NULL AND warned_at IS NOT NULL"
        " AND (member_id IN (SELECT id FROM member WHERE billed_by IS NOT NULL)"
        f" OR campaign_id IN (SELECT id FROM campaign WHERE {keeps} = 'keep'))"
    )


def downgrade():
    op.drop_column('member_case', 'told_it_continues')
