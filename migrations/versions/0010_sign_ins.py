"""Where members are signed in

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    sqlite = op.get_bind().dialect.name == "sqlite"
    new_id = "(lower(hex(randomblob(16))))" if sqlite else "replace(gen_random_uuid()::text, '-', '')"
    op.create_table('sign_in',
    sa.Column('id', INTEGER, nullable=False),
    sa.Column('public_id', sa.String(length=32), server_default=sa.text(new_id), nullable=False),
    sa.Column('member_id', INTEGER, nullable=False),
    sa.Column('device', sa.String(length=20), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("device IN ('iphone', 'ipad', 'android_phone', 'android_tablet', 'windows', 'mac', 'chromebook', 'linux', 'other')", name=op.f('ck_sign_in_device')),
    sa.ForeignKeyConstraint(['member_id'], ['member.id'], name=op.f('fk_sign_in_member_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sign_in')),
    sa.UniqueConstraint('public_id', name=op.f('uq_sign_in_public_id'))
    )
    op.create_index('ix_sign_in_member_id', 'sign_in', ['member_id'], unique=False)
    op.create_index('ix_sign_in_at', 'sign_in', ['at'], unique=False)


def downgrade():
    op.drop_table('sign_in')
