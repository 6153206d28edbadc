"""The outbox of events to the service

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
RANDOM_ID = {
    "sqlite": "(lower(hex(randomblob(16))))",
    "postgresql": "replace(gen_random_uuid()::text, '-', '')",
}


def upgrade():
    random_id = sa.text(RANDOM_ID[op.get_bind().dialect.name])
    op.create_table('event_endpoint',
    sa.Column('id', sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column('url_digest', sa.String(length=64), nullable=False),
    sa.Column('since', sa.DateTime(timezone=True), nullable=False),
    sa.Column('refused_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('failures', INTEGER, server_default='0', nullable=False),
    sa.Column('failing_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('paused_until', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('id = 1', name=op.f('ck_event_endpoint_one_row')),
    sa.CheckConstraint('(failures > 0) = (failing_since IS NOT NULL)', name=op.f('ck_event_endpoint_failing_since')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_event_endpoint'))
    )
    op.create_table('outgoing_event',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=random_id, nullable=False),
    sa.Column('type', sa.String(length=20), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('detail', sa.String(length=40), nullable=True),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('case_id', INTEGER, nullable=True),
    sa.Column('external_id', sa.String(length=200), nullable=True),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('access_ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('keep_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('state', sa.String(length=10), server_default='queued', nullable=False),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('attempts', INTEGER, server_default='0', nullable=False),
    sa.Column('lease_token', sa.String(length=32), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('said', sa.String(length=200), nullable=True),
    sa.Column('sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('done_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("type IN ('case.opened', 'case.closed', 'member.kept', 'member.ending', 'member.lapsed', 'member.returned', 'member.changed', 'member.erasing', 'member.purged')", name=op.f('ck_outgoing_event_type')),
    sa.CheckConstraint("state IN ('queued', 'sending', 'sent', 'done', 'failed', 'obsolete')", name=op.f('ck_outgoing_event_state')),
    sa.CheckConstraint("(state = 'sending') = (lease_token IS NOT NULL)", name=op.f('ck_outgoing_event_sending_has_lease')),
    sa.CheckConstraint("state <> 'sent' OR sent_at IS NOT NULL", name=op.f('ck_outgoing_event_sent_has_instant')),
    sa.CheckConstraint("(state IN ('done', 'failed', 'obsolete')) = (done_at IS NOT NULL)", name=op.f('ck_outgoing_event_over_since')),
    sa.CheckConstraint("external_id IS NULL OR (type = 'member.purged' AND state NOT IN ('done', 'obsolete'))", name=op.f('ck_outgoing_event_known_until_acknowledged')),
    sa.ForeignKeyConstraint(['case_id'], ['member_case.id'], name=op.f('fk_outgoing_event_case_id')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_outgoing_event_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_outgoing_event')),
    sa.UniqueConstraint('public_id', name=op.f('uq_outgoing_event_public_id'))
    )
    unfinished = sa.text("state IN ('queued', 'sending')")
    op.create_index('ix_outgoing_event_due', 'outgoing_event', ['due_at'], unique=False, sqlite_where=unfinished, postgresql_where=unfinished)
    op.create_index('ix_outgoing_event_unfinished', 'outgoing_event', ['member_id', 'id'], unique=False, sqlite_where=unfinished, postgresql_where=unfinished)
    op.create_index('ix_outgoing_event_member_id', 'outgoing_event', ['member_id'], unique=False)
    op.create_index('ix_outgoing_event_done_at', 'outgoing_event', ['done_at'], unique=False)


def downgrade():
    op.drop_table('outgoing_event')
    op.drop_table('event_endpoint')
