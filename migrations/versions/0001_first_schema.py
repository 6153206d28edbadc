"""First schema

Revision ID: 0001
Revises: 
"""

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

RANDOM_ID = {
    "sqlite": "(lower(hex(randomblob(16))))",
    "postgresql": "replace(gen_random_uuid()::text, '-', '')",
}
SIGN_OF_LIFE = {
    "sqlite": "max(joined_at, coalesce(last_used_at, joined_at), coalesce(last_kept_at, joined_at),"
    " coalesce(returned_at, joined_at))",
    "postgresql": "greatest(joined_at, last_used_at, last_kept_at, returned_at)",
}
GUARDS = {
    "sqlite": [
        "CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN"
        " SELECT RAISE(ABORT, 'event is append-only'); END",
        "CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN"
        " SELECT RAISE(ABORT, 'event is append-only'); END",
    ],
    "postgresql": [
        "CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'event is append-only'; END $$",
        "CREATE TRIGGER event_no_change BEFORE UPDATE OR DELETE ON event"
        " FOR EACH ROW EXECUTE FUNCTION event_is_append_only()",
        "CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON event"
        " FOR EACH STATEMENT EXECUTE FUNCTION event_is_append_only()",
    ],
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    random_id = sa.text(RANDOM_ID[dialect])
    sign_of_life = SIGN_OF_LIFE[dialect]

    op.create_table('campaign',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=random_id, nullable=False),
    sa.Column('month', sa.String(length=7), nullable=False),
    sa.Column('state', sa.String(length=10), nullable=False),
    sa.Column('policy', sa.JSON(), nullable=False),
    sa.Column('drafted_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('opened_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('cancelled_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('cancel_reason', sa.String(length=20), nullable=True),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('dormant_count', INTEGER, nullable=False),
    sa.Column('paying_count', INTEGER, nullable=True),
    sa.Column('held_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('hold_reason', sa.String(length=20), nullable=True),
    sa.Column('hold_facts', sa.JSON(), nullable=True),
    sa.Column('released', sa.JSON(), server_default=sa.text("'{}'"), nullable=False),
    sa.CheckConstraint("hold_reason IN ('too_many', 'share_jumped', 'feed_silent', 'feed_incomplete', 'bounces', 'operator', 'restored')", name=op.f('ck_campaign_hold_reason')),
    sa.CheckConstraint("state <> 'held' OR hold_reason IS NOT NULL", name=op.f('ck_campaign_held_says_why')),
    sa.CheckConstraint("state <> 'open' OR opened_at IS NOT NULL", name=op.f('ck_campaign_open_since')),
    sa.CheckConstraint("state IN ('draft', 'held', 'open', 'closed', 'cancelled')", name=op.f('ck_campaign_state')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_campaign')),
    sa.UniqueConstraint('month', name=op.f('uq_campaign_month')),
    sa.UniqueConstraint('public_id', name=op.f('uq_campaign_public_id'))
    )
    op.create_table('clock_jump',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('noticed_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expected_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('confirmed_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_clock_jump'))
    )
    op.create_table('erasure',
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('purged_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_erasure'))
    )
    op.create_table('event',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('code', sa.String(length=40), nullable=False),
    sa.Column('detail', sa.String(length=40), nullable=True),
    sa.Column('member_id', INTEGER, nullable=True),
    sa.Column('case_id', INTEGER, nullable=True),
    sa.Column('campaign_id', INTEGER, nullable=True),
    sa.Column('operator_id', INTEGER, nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_event'))
    )
    op.create_index('ix_event_campaign_id', 'event', ['campaign_id'], unique=False)
    op.create_index('ix_event_member_id', 'event', ['member_id'], unique=False)
    op.create_table('job_run',
    sa.Column('job', sa.String(length=30), nullable=False),
    sa.Column('period', sa.String(length=20), nullable=False),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('lease_token', sa.String(length=32), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('attempts', INTEGER, server_default='0', nullable=False),
    sa.Column('result', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('job', 'period', name=op.f('pk_job_run'))
    )
    op.create_table('local_call',
    sa.Column('key', sa.String(length=120), nullable=False),
    sa.Column('reference', sa.String(length=64), nullable=False),
    sa.Column('next_charge_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('called_at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_local_call'))
    )
    op.create_table('local_subscription',
    sa.Column('billing_ref', sa.String(length=200), nullable=False),
    sa.Column('stopped_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('next_charge_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('billing_ref', name=op.f('pk_local_subscription'))
    )
    op.create_table('mail_pace',
    sa.Column('id', sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column('next_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('day', sa.String(length=10), nullable=True),
    sa.Column('spent', INTEGER, server_default='0', nullable=False),
    sa.CheckConstraint('id = 1', name=op.f('ck_mail_pace_one_row')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_mail_pace'))
    )
    op.create_table('member',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=random_id, nullable=False),
    sa.Column('external_id', sa.String(length=200), nullable=True),
    sa.Column('email', sa.String(length=320), nullable=True),
    sa.Column('email_key', sa.String(length=320), nullable=True),
    sa.Column('email_replaced_key', sa.String(length=320), nullable=True),
    sa.Column('name', sa.String(length=200), nullable=True),
    sa.Column('locale', sa.String(length=35), nullable=True),
    sa.Column('locale_chosen_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('status', sa.String(length=10), server_default='active', nullable=False),
    sa.Column('joined_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_kept_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('returned_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_sign_of_life_at', sa.DateTime(timezone=True), sa.Computed(sign_of_life, persisted=True), nullable=False),
    sa.Column('plan', sa.String(length=100), nullable=True),
    sa.Column('price_minor', INTEGER, nullable=True),
    sa.Column('currency', sa.String(length=3), nullable=True),
    sa.Column('billing_interval', sa.String(length=10), nullable=True),
    sa.Column('subscription_status', sa.String(length=10), server_default='active', nullable=False),
    sa.Column('paid_through', sa.DateTime(timezone=True), nullable=True),
    sa.Column('billing_ref', sa.String(length=200), nullable=True),
    sa.Column('exempt_reason', sa.String(length=200), nullable=True),
    sa.Column('operator_exempt_reason', sa.String(length=200), nullable=True),
    sa.Column('mail_state', sa.String(length=10), server_default='good', nullable=False),
    sa.Column('lapsed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('access_ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('keep_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('erase_requested_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('purged_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('session_generation', INTEGER, server_default='1', nullable=False),
    sa.CheckConstraint("mail_state IN ('good', 'bounced', 'complained')", name=op.f('ck_member_mail_state')),
    sa.CheckConstraint("status <> 'lapsed' OR (lapsed_at IS NOT NULL AND access_ends_at IS NOT NULL AND keep_until IS NOT NULL AND access_ends_at >= lapsed_at AND keep_until > access_ends_at)", name=op.f('ck_member_lapsed_has_dates')),
    sa.CheckConstraint("status <> 'purged' OR (external_id IS NULL AND email IS NULL AND email_key IS NULL AND name IS NULL AND email_replaced_key IS NULL AND billing_ref IS NULL AND exempt_reason IS NULL AND operator_exempt_reason IS NULL AND purged_at IS NOT NULL)", name=op.f('ck_member_purged_is_empty')),
    sa.CheckConstraint("status = 'purged' OR (external_id IS NOT NULL AND email IS NOT NULL AND email_key IS NOT NULL)", name=op.f('ck_member_known_until_purged')),
    sa.CheckConstraint("status IN ('active', 'ended', 'lapsed', 'purged')", name=op.f('ck_member_status')),
    sa.CheckConstraint("subscription_status IN ('active', 'trial', 'paused', 'past_due', 'ended')", name=op.f('ck_member_subscription_status')),
    sa.CheckConstraint('price_minor >= 0', name=op.f('ck_member_price_not_negative')),
    sa.CheckConstraint('price_minor IS NULL OR currency IS NOT NULL', name=op.f('ck_member_price_has_currency')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_member')),
    sa.UniqueConstraint('external_id', name=op.f('uq_member_external_id')),
    sa.UniqueConstraint('public_id', name=op.f('uq_member_public_id'))
    )
    op.create_index('ix_member_email_key', 'member', ['email_key'], unique=False)
    op.create_index('ix_member_keep_until', 'member', ['keep_until'], unique=False, sqlite_where=sa.text("status = 'lapsed'"), postgresql_where=sa.text("status = 'lapsed'"))
    op.create_index('ix_member_never_used', 'member', ['last_sign_of_life_at'], unique=False, sqlite_where=sa.text("status = 'active' AND subscription_status = 'active' AND price_minor > 0 AND exempt_reason IS NULL AND operator_exempt_reason IS NULL AND last_used_at IS NULL"), postgresql_where=sa.text("status = 'active' AND subscription_status = 'active' AND price_minor > 0 AND exempt_reason IS NULL AND operator_exempt_reason IS NULL AND last_used_at IS NULL"))
    op.create_index('ix_member_stopped_using', 'member', ['last_sign_of_life_at'], unique=False, sqlite_where=sa.text("status = 'active' AND subscription_status = 'active' AND price_minor > 0 AND exempt_reason IS NULL AND operator_exempt_reason IS NULL AND last_used_at IS NOT NULL"), postgresql_where=sa.text("status = 'active' AND subscription_status = 'active' AND price_minor > 0 AND exempt_reason IS NULL AND operator_exempt_reason IS NULL AND last_used_at IS NOT NULL"))
    op.create_table('operator',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('email', sa.String(length=320), nullable=False),
    sa.Column('email_key', sa.String(length=320), nullable=False),
    sa.Column('role', sa.String(length=20), nullable=False),
    sa.Column('locale', sa.String(length=35), nullable=True),
    sa.Column('password_hash', sa.String(length=300), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('session_generation', INTEGER, server_default='1', nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_operator')),
    sa.UniqueConstraint('email_key', name=op.f('uq_operator_email_key'))
    )
    op.create_table('use_feed',
    sa.Column('source', sa.String(length=100), nullable=False),
    sa.Column('complete_through', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_event_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('source', name=op.f('pk_use_feed'))
    )
    op.create_table('local_charge',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('billing_ref', sa.String(length=200), nullable=False),
    sa.Column('period_start', sa.DateTime(timezone=True), nullable=False),
    sa.Column('amount_minor', INTEGER, nullable=False),
    sa.Column('currency', sa.String(length=3), nullable=False),
    sa.Column('charged_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('refunded_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['billing_ref'], ['local_subscription.billing_ref'], name=op.f('fk_local_charge_billing_ref')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_local_charge')),
    sa.UniqueConstraint('billing_ref', 'period_start', name=op.f('uq_local_charge_billing_ref_period_start'))
    )
    op.create_table('magic_link',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('purpose', sa.String(length=20), nullable=False),
    sa.Column('member_id', INTEGER, nullable=True),
    sa.Column('token_hash', sa.String(length=64), nullable=True),
    sa.Column('address_digest', sa.String(length=64), nullable=False),
    sa.Column('new_address', sa.String(length=320), nullable=True),
    sa.Column('ip_digest', sa.String(length=64), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("purpose IN ('sign_in', 'erase', 'come_back', 'new_address', 'end')", name=op.f('ck_magic_link_purpose')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_magic_link_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_magic_link')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_magic_link_token_hash'))
    )
    op.create_index('ix_magic_link_address_digest', 'magic_link', ['address_digest', 'created_at'], unique=False)
    op.create_index('ix_magic_link_ip_digest', 'magic_link', ['ip_digest', 'created_at'], unique=False)
    op.create_index('ix_magic_link_member_id', 'magic_link', ['member_id'], unique=False)
    op.create_table('member_case',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=random_id, nullable=False),
    sa.Column('campaign_id', INTEGER, nullable=True),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('rule', sa.String(length=15), nullable=False),
    sa.Column('opened_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('found_joined_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('found_last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('found_sign_of_life_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('found_plan', sa.String(length=100), nullable=True),
    sa.Column('found_price_minor', INTEGER, nullable=True),
    sa.Column('found_currency', sa.String(length=3), nullable=True),
    sa.Column('found_billing_interval', sa.String(length=10), nullable=True),
    sa.Column('address', sa.String(length=320), nullable=True),
    sa.Column('address_generation', INTEGER, server_default='1', nullable=False),
    sa.Column('generation', INTEGER, server_default='1', nullable=False),
    sa.Column('warned_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('warned_to', sa.String(length=320), nullable=True),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('state', sa.String(length=12), server_default='open', nullable=False),
    sa.Column('answer', sa.String(length=5), nullable=True),
    sa.Column('answered_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('answered_through', sa.String(length=10), nullable=True),
    sa.Column('answer_note', sa.String(length=500), nullable=True),
    sa.Column('wording_version', sa.String(length=20), nullable=True),
    sa.Column('kept_before_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('not_mine_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reminders_declined_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('batch', sa.String(length=32), nullable=True),
    sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f('ck_member_case_live_until_closed')),
    sa.CheckConstraint("answer IN ('keep', 'lapse')", name=op.f('ck_member_case_answer')),
    sa.CheckConstraint("answered_through IN ('link', 'account', 'public', 'operator', 'silence')", name=op.f('ck_member_case_answered_through')),
    sa.CheckConstraint("rule = 'own_wish' OR campaign_id IS NOT NULL", name=op.f('ck_member_case_asked_in_a_campaign')),
    sa.CheckConstraint("rule IN ('never_used', 'stopped_using', 'own_wish')", name=op.f('ck_member_case_rule')),
    sa.CheckConstraint("state <> 'lapsed' OR coalesce(answer, '') = 'lapse' OR warned_at IS NOT NULL", name=op.f('ck_member_case_warned_or_own_wish')),
    sa.CheckConstraint("state IN ('open', 'kept', 'lapsed', 'returned', 'exempted', 'withdrawn', 'unreachable', 'told')", name=op.f('ck_member_case_state')),
    sa.CheckConstraint('(answer IS NULL) = (answered_at IS NULL)', name=op.f('ck_member_case_answer_has_instant')),
    sa.CheckConstraint('warned_at IS NULL OR deadline_at IS NOT NULL', name=op.f('ck_member_case_warned_for_a_deadline')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaign.id'], name=op.f('fk_member_case_campaign_id')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_member_case_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_member_case')),
    sa.UniqueConstraint('campaign_id', 'member_id', name=op.f('uq_member_case_campaign_id_member_id')),
    sa.UniqueConstraint('public_id', name=op.f('uq_member_case_public_id'))
    )
    op.create_index('ix_member_case_batch', 'member_case', ['batch'], unique=False, sqlite_where=sa.text('batch IS NOT NULL'), postgresql_where=sa.text('batch IS NOT NULL'))
    op.create_index('ix_member_case_due', 'member_case', ['deadline_at', 'member_id'], unique=False, sqlite_where=sa.text('closed_at IS NULL'), postgresql_where=sa.text('closed_at IS NULL'))
    op.create_index('ix_member_case_member_id', 'member_case', ['member_id'], unique=False)
    op.create_index('uq_member_case_live', 'member_case', ['member_id'], unique=True, sqlite_where=sa.text('closed_at IS NULL'), postgresql_where=sa.text('closed_at IS NULL'))
    op.create_table('profile',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('position', INTEGER, nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.Column('settings', sa.JSON(), nullable=False),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_profile_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_profile')),
    sa.UniqueConstraint('member_id', 'position', name=op.f('uq_profile_member_id_position'))
    )
    op.create_table('billing_order',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=random_id, nullable=False),
    sa.Column('key', sa.String(length=120), nullable=False),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('case_id', INTEGER, nullable=True),
    sa.Column('kind', sa.String(length=10), nullable=False),
    sa.Column('billing_ref', sa.String(length=200), nullable=True),
    sa.Column('price_minor', INTEGER, nullable=True),
    sa.Column('currency', sa.String(length=3), nullable=True),
    sa.Column('billing_interval', sa.String(length=10), nullable=True),
    sa.Column('since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('state', sa.String(length=10), server_default='queued', nullable=False),
    sa.Column('attempts', INTEGER, server_default='0', nullable=False),
    sa.Column('lease_token', sa.String(length=32), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('receipt', sa.String(length=200), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('done_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind IN ('stop', 'undo', 'restart', 'refund')", name=op.f('ck_billing_order_kind')),
    sa.CheckConstraint("state IN ('queued', 'working', 'done', 'failed', 'superseded')", name=op.f('ck_billing_order_state')),
    sa.ForeignKeyConstraint(['case_id'], ['member_case.id'], name=op.f('fk_billing_order_case_id')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_billing_order_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_billing_order')),
    sa.UniqueConstraint('key', name=op.f('uq_billing_order_key')),
    sa.UniqueConstraint('public_id', name=op.f('uq_billing_order_public_id'))
    )
    op.create_index('ix_billing_order_due', 'billing_order', ['due_at'], unique=False, sqlite_where=sa.text("state IN ('queued', 'working')"), postgresql_where=sa.text("state IN ('queued', 'working')"))
    op.create_index('ix_billing_order_member_id', 'billing_order', ['member_id'], unique=False)
    op.create_table('message',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=random_id, nullable=False),
    sa.Column('once_key', sa.String(length=120), nullable=False),
    sa.Column('member_id', INTEGER, nullable=True),
    sa.Column('case_id', INTEGER, nullable=True),
    sa.Column('campaign_id', INTEGER, nullable=True),
    sa.Column('operator_id', INTEGER, nullable=True),
    sa.Column('magic_link_id', INTEGER, nullable=True),
    sa.Column('kind', sa.String(length=20), nullable=False),
    sa.Column('locale', sa.String(length=35), nullable=True),
    sa.Column('to_address', sa.String(length=320), nullable=True),
    sa.Column('priority', sa.SmallInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('deadline_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('state', sa.String(length=10), server_default='queued', nullable=False),
    sa.Column('attempts', INTEGER, server_default='0', nullable=False),
    sa.Column('lease_token', sa.String(length=32), nullable=True),
    sa.Column('lease_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('message_id', sa.String(length=200), nullable=True),
    sa.Column('smtp_reply', sa.Text(), nullable=True),
    sa.Column('sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(state = 'sending') = (lease_token IS NOT NULL)", name=op.f('ck_message_sending_has_lease')),
    sa.CheckConstraint("kind IN ('warning', 'reminder', 'last_call', 'deadline_moved', 'withdrawn', 'returned', 'receipt_keep', 'receipt_lapse', 'lapsed', 'used_after_end', 'welcome_back', 'last_chance', 'erased', 'sign_in', 'erase_confirm', 'end_unclear', 'new_address', 'address_changed', 'campaign_ready', 'approve_by', 'needs_attention')", name=op.f('ck_message_kind')),
    sa.CheckConstraint("state <> 'sent' OR (sent_at IS NOT NULL AND smtp_reply IS NOT NULL)", name=op.f('ck_message_sent_has_reply')),
    sa.CheckConstraint("state IN ('queued', 'sending', 'sent', 'failed', 'bounced', 'obsolete')", name=op.f('ck_message_state')),
    sa.ForeignKeyConstraint(['campaign_id'], ['campaign.id'], name=op.f('fk_message_campaign_id')),
    sa.ForeignKeyConstraint(['case_id'], ['member_case.id'], name=op.f('fk_message_case_id')),
    sa.ForeignKeyConstraint(['magic_link_id'], ['magic_link.id'], name=op.f('fk_message_magic_link_id')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_message_member_id')),
    sa.ForeignKeyConstraint(['operator_id'], ['operator.id'], name=op.f('fk_message_operator_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_message')),
    sa.UniqueConstraint('once_key', name=op.f('uq_message_once_key')),
    sa.UniqueConstraint('public_id', name=op.f('uq_message_public_id'))
    )
    op.create_index('ix_message_case_id', 'message', ['case_id'], unique=False)
    op.create_index('ix_message_member_id', 'message', ['member_id'], unique=False)
    op.create_index('ix_message_queued', 'message', ['priority', 'due_at'], unique=False, sqlite_where=sa.text("state = 'queued'"), postgresql_where=sa.text("state = 'queued'"))
    op.create_index('ix_message_refused', 'message', ['campaign_id'], unique=False, sqlite_where=sa.text("state IN ('bounced', 'failed')"), postgresql_where=sa.text("state IN ('bounced', 'failed')"))
    op.create_index('ix_message_sending', 'message', ['lease_until'], unique=False, sqlite_where=sa.text("state = 'sending'"), postgresql_where=sa.text("state = 'sending'"))
    op.create_table('saved_list',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('profile_id', INTEGER, nullable=False),
    sa.Column('position', INTEGER, nullable=False),
    sa.Column('kind', sa.String(length=50), nullable=False),
    sa.Column('name', sa.String(length=200), nullable=False),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_saved_list_member_id')),
    sa.ForeignKeyConstraint(['profile_id'], ['profile.id'], name=op.f('fk_saved_list_profile_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_saved_list')),
    sa.UniqueConstraint('profile_id', 'position', name=op.f('uq_saved_list_profile_id_position'))
    )
    op.create_index('ix_saved_list_member_id', 'saved_list', ['member_id'], unique=False)
    op.create_table('list_item',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('list_id', INTEGER, nullable=False),
    sa.Column('position', INTEGER, nullable=False),
    sa.Column('ref', sa.String(length=500), nullable=False),
    sa.Column('title', sa.String(length=500), nullable=False),
    sa.Column('added_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['list_id'], ['saved_list.id'], name=op.f('fk_list_item_list_id')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_list_item_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_list_item')),
    sa.UniqueConstraint('list_id', 'position', name=op.f('uq_list_item_list_id_position'))
    )
    op.create_index('ix_list_item_member_id', 'list_item', ['member_id'], unique=False)

    for statement in GUARDS[dialect]:
        op.execute(statement)
