"""What the promises rest on, broken on purpose: each mutation takes one condition, constraint, lock or check away.

``make mutate`` does each once, on a copy of the tree, and the tests named with it have to turn red.
tests/faults/test_mutations.py holds this list to the code and to docs/reliability.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """``old`` stands once in ``file`` and is replaced by ``new``; ``tests`` are caught by pytest's ``-k`` on ``on``."""

    broken: str
    file: str
    old: str
    new: str
    tests: str
    """The file of the test and its name, as ``tests/…/test_x.py::test_name``."""

    on: str = "sqlite"
    """The database it shows on; empty for tests without one."""


SCHEMA = "migrations/versions/0001_first_schema.py"

MUTATIONS = [
    # Promise 1: nobody lapses unasked and unwarned.
    Mutation(
        "The database takes a lapse that was neither warned nor wished for",
        SCHEMA,
        "state <> 'lapsed' OR coalesce(answer, '') = 'lapse' OR warned_at IS NOT NULL",
        "1 = 1",
        "tests/migrations/test_constraints.py::test_what_is_wrong_is_refused_by_the_database",
    ),
    Mutation(
        "A warning counts however short the notice was",
        "services/closing.py",
        "        Case.warned_at < dates.warned_by(deadline, settings.min_notice_days, settings.zone),\n",
        "        Case.warned_at.is_not(None),\n",
        "tests/services/test_conditions.py::test_silence_ends_nothing_where_one_fact_speaks_against_it",
    ),
    Mutation(
        "A warning that has bounced counts",
        "services/closing.py",
        "            Message.state == MessageState.SENT,\n",
        "",
        "tests/services/test_conditions.py::test_silence_ends_nothing_where_one_fact_speaks_against_it",
    ),
    Mutation(
        "A lapse does not ask for the address that was warned",
        "services/closing.py",
        "        Member.email == Case.warned_to,\n",
        "",
        "tests/services/test_conditions.py::test_silence_ends_nothing_where_one_fact_speaks_against_it",
    ),
    Mutation(
        "A changed address keeps the warning of the old one",
        "services/warning.py",
        '    "warned_at": None,\n    "warned_to": None,\n',
        "",
        "tests/services/test_scenarios.py::"
        "test_scenario_13_a_changed_address_is_warned_and_the_old_warning_counts_no_more",
    ),
    Mutation(
        "A warning accepted too late for the day it names does not move that day",
        "services/mail/recording.py",
        "    if now >= _warned_by(deadline, settings.min_notice_days, settings.zone):\n",
        "    if False:\n",
        "tests/services/test_scenarios.py::test_scenario_10_a_warning_accepted_too_late_moves_the_deadline",
    ),
    Mutation(
        "Silence ends memberships of a held round",
        "services/closing.py",
        "        warning,\n        campaign_is_open,\n",
        "        warning,\n",
        "tests/services/test_scenarios.py::test_scenario_11_held_and_released_next_month_ends_nobody_that_day",
    ),
    # Promise 2: facts are checked at the moment of action.
    Mutation(
        "The facts are no condition of the lapse",
        "services/closing.py",
        "    return and_(\n        facts_hold(settings),\n",
        "    return and_(\n        Case.answer.is_(None),\n",
        "tests/faults/test_overlap.py::test_scenario_17_a_use_that_is_uncommitted_when_close_begins_wins_or_reverses",
    ),
    Mutation(
        "The month end does not lock its members",
        "services/closing.py",
        "        .with_for_update(key_share=True)\n        .subquery()\n    )\n    furthest",
        "        .subquery()\n    )\n    furthest",
        "tests/faults/test_overlap.py::test_scenario_25_a_payment_that_is_uncommitted_when_close_begins_is_waited_for",
        "postgresql",
    ),
    Mutation(
        "A keep after an end is no condition of the lapse",
        "services/closing.py",
        "        or_(Member.last_kept_at.is_(None), Member.last_kept_at <= Case.answered_at),\n",
        "",
        "tests/services/test_conditions.py::test_a_keep_on_the_members_row_outweighs_an_end_that_the_case_still_shows",
    ),
    Mutation(
        "An import does not wait for a month end under way",
        "services/files/member_upsert.py",
        "    lock_members(session, asked)",
        "    pass",
        "tests/faults/test_overlap.py::test_scenario_17_a_use_that_is_uncommitted_when_close_begins_wins_or_reverses",
        "postgresql",
    ),
    Mutation(
        "A notice goes out although the facts are gone",
        "services/mail/dispatch.py",
        "        and_(\n            facts_hold_but(exempt_plans),\n            Campaign.state == CampaignState.OPEN,\n",
        "        and_(\n            Campaign.state == CampaignState.OPEN,\n",
        "tests/services/test_delivery.py::test_a_notice_whose_facts_are_gone_is_not_sent_and_becomes_obsolete",
    ),
    Mutation(
        "Use before the lapse that is told later reverses nothing",
        "services/returning.py",
        "    return _reverse(session, _used_in_time(used), CaseState.RETURNED, now)\n",
        "    return 0\n",
        "tests/services/test_scenarios.py::test_scenario_19_use_on_the_last_day_reported_after_close_reverses",
    ),
    Mutation(
        "Use after the lapse reverses it, too",
        "services/returning.py",
        "            used.c.used_at < Case.closed_at,\n",
        "",
        "tests/services/test_scenarios.py::test_scenario_19_use_after_the_lapse_does_not_reverse_it",
    ),
    # Promise 3: nothing changes on GET.
    Mutation(
        "The page of a notice takes an answer by GET",
        "blueprints/checkin/views.py",
        '@blueprint.get("/check-in/<token>")\ndef show(token: str) -> Response:\n    return _page(_of_token(token))\n',
        '@blueprint.get("/check-in/<token>")\ndef show(token: str) -> Response:\n'
        "    for_writing(db.session())\n    seen = _of_token(token)\n    if seen is not None:\n"
        "        decisions.answer(db.session(), installed().settings, seen.case.id, Answer.KEEP, Through.LINK,"
        " installed().clock.now())\n        db.session.commit()\n    return _page(_of_token(token))\n",
        "tests/web/test_checkin.py::test_scenario_26_looking_changes_nothing",
    ),
    Mutation(
        "Looking at a sign-in link uses it up",
        "services/magic_links.py",
        "    link, member = found\n    key = member.email_key\n",
        "    link, member = found\n    key = member.email_key\n    link.used_at = now\n    session.commit()\n",
        "tests/web/test_auth.py::test_scenario_26_opening_a_sign_in_link_consumes_nothing",
    ),
    Mutation(
        "A press that a machine may have made counts at once",
        "blueprints/checkin/views.py",
        "    if not signed_in and _may_be_a_machine(seen):\n        return _page(",
        "    if False:\n        return _page(",
        "tests/web/test_checkin.py::test_scenario_26_a_press_right_after_the_mail_has_to_be_repeated",
    ),
    Mutation(
        "Forms are taken without their CSRF token",
        "app.py",
        "    csrf = CSRFProtect(app)",
        '    app.config["WTF_CSRF_CHECK_DEFAULT"] = False\n    csrf = CSRFProtect(app)',
        "tests/web/test_checkin.py::test_scenario_28_a_press_without_csrf_token_shows_the_page_again",
    ),
    # Promise 4: every answer is idempotent, changeable, and met with the truth.
    Mutation(
        "The same answer again is a second answer",
        "services/decisions.py",
        "    if case.answer == wish:\n        return case\n",
        "",
        "tests/web/test_checkin.py::test_the_same_answer_twice_is_one_answer",
    ),
    Mutation(
        "A keep that is taken back stays a sign of life",
        "services/decisions.py",
        "            member.last_kept_at = case.kept_before_at\n",
        "            pass\n",
        "tests/services/test_scenarios.py::test_scenario_01_who_kept_is_asked_again_only_after_the_rule_holds_anew",
    ),
    Mutation(
        "An answer does not lock the member",
        "services/decisions.py",
        "    member = cases.lock(session, found.member_id)\n    case =",
        "    member = session.get(Member, found.member_id)\n    case =",
        "tests/faults/test_overlap.py::test_scenario_18_an_answer_half_done_when_close_begins_is_finished_first",
        "postgresql",
    ),
    # Promise 5: once.
    Mutation(
        "A member may have two live cases",
        SCHEMA,
        "op.create_index('uq_member_case_live', 'member_case', ['member_id'], unique=True,",
        "op.create_index('uq_member_case_live', 'member_case', ['member_id'], unique=False,",
        "tests/migrations/test_constraints.py::"
        "test_scenario_08_a_member_has_one_live_case_and_as_many_closed_ones_as_there_were",
    ),
    Mutation(
        "A sender records a mail whose lease is no longer its own",
        "services/mail/recording.py",
        ".where(message.id == answer.number(0), message.lease_token == answer.word(1))",
        ".where(message.id == answer.number(0))",
        "tests/faults/test_overlap.py::test_scenario_15_a_sender_slower_than_its_lease_and_the_one_who_took_the_row",
    ),
    Mutation(
        "A sender records on PostgreSQL a mail whose lease is no longer its own",
        "services/mail/recording.py",
        "message.id == answer.c.id, message.lease_token == answer.c.token)",
        "message.id == answer.c.id)",
        "tests/services/test_delivery.py::test_of_replies_that_came_together_each_is_written_down_as_it_is",
        "postgresql",
    ),
    Mutation(
        "A group of replies is written down in one go of which some are not alike",
        "services/mail/recording.py",
        "        if _in_turn(straight, rows, now) != _Recorded(len(rows), _warnings(rows)):\n            return None\n",
        "        _in_turn(straight, rows, now)\n",
        "tests/services/test_straight.py::test_of_a_group_of_which_one_case_is_closed_its_reader_is_told",
    ),
    Mutation(
        "What is not wanted stays written, with the next group",
        "models/straight.py",
        '            self._driver.execute("ROLLBACK")',
        "            pass",
        "tests/services/test_straight.py::test_what_fails_or_is_not_wanted_is_not_written",
    ),
    Mutation(
        "What fails as PostgreSQL commits it counts as recorded",
        "models/under_way.py",
        "_rows(result) if result.status == pq.ExecStatus.TUPLES_OK else None",
        "_rows(result) if result.status == pq.ExecStatus.TUPLES_OK else self._answer",
        "tests/services/test_under_way.py::test_what_fails_when_it_is_committed_has_failed",
        "postgresql",
    ),
    Mutation(
        "A refusal is lost that came with a group which could not be recorded",
        "services/mail/desk.py",
        "self._each_by_itself([*self._asked, *self._others])",
        "self._each_by_itself([*self._asked])",
        "tests/services/test_under_way.py::test_what_was_asked_of_a_connection_that_is_lost_is_written_down_on_another",
        "postgresql",
    ),
    Mutation(
        "A new Message-ID for each try",
        "services/mail/dispatch.py",
        "            message_id=func.coalesce(\n                _TABLE.c.message_id, ",
        "            message_id=func.coalesce(\n                bindparam('token', type_=String()), ",
        "tests/faults/test_overlap.py::test_scenario_15_a_sender_slower_than_its_lease_and_the_one_who_took_the_row",
    ),
    Mutation(
        "A mail is taken whose lease has not run out",
        "services/mail/dispatch.py",
        '            _TABLE.c.lease_until <= bindparam("now", type_=UTCDateTime()),\n',
        "",
        "tests/faults/test_overlap.py::test_scenario_42_four_schedulers_and_four_senders_do_everything_once",
    ),
    Mutation(
        "A period is taken that another works on",
        "jobs/runner.py",
        "                or_(JobRun.lease_until.is_(None), JobRun.lease_until <= now),\n",
        "",
        "tests/faults/test_overlap.py::test_scenario_42_four_schedulers_and_four_senders_do_everything_once",
    ),
    Mutation(
        "A membership lapses that an app store goes on billing",
        "services/closing.py",
        "            Member.billed_by.is_(None),\n            due,\n",
        "            due,\n",
        "tests/services/test_month_end_truths.py::test_whom_a_store_has_come_to_bill_after_the_warning_does_not_lapse",
    ),
    Mutation(
        "The rest of a paid period goes back again under another key",
        "adapters/billing/local.py",
        "            if owed > (row.refunded_minor or 0):",
        "            if owed:",
        "tests/adapters/test_local_billing.py::test_a_refund_gives_back_periods_from_then_on_once",
    ),
    Mutation(
        "Nobody looks whether Stripe has begun a subscription for an order already",
        "adapters/billing/stripe/client.py",
        "            if metadata.get(KEY) == key or metadata.get(BEFORE) == ended:",
        "            if not metadata and ended == key:",
        "tests/faults/test_kill_billing.py::test_nobody_is_charged_after_an_end_twice_or_begun_twice",
    ),
    Mutation(
        "Nobody takes over an order whose lease has run out",
        "services/billing_asking.py",
        "and_(BillingOrder.state == OrderState.WORKING, BillingOrder.lease_until <= now),",
        "",
        "tests/faults/test_kill.py::test_every_job_killed_in_the_middle_of_its_work_goes_on_where_it_was",
    ),
    Mutation(
        "The provider's books do not remember keys",
        "adapters/billing/local.py",
        "        if not self._insert_new(_call, values):",
        "        if not self._insert_new(_call, {**values, 'key': secrets.token_hex(8)}):",
        "tests/faults/test_kill.py::test_a_server_killed_while_members_answer_and_come_back",
    ),
    Mutation(
        "Two who use a link at once both get in",
        "services/magic_links.py",
        "        MagicLink.used_at.is_(None),\n        MagicLink.expires_at > now,\n",
        "        MagicLink.expires_at > now,\n",
        "tests/services/test_magic_links.py::test_of_two_who_consume_at_once_one_gets_it",
    ),
    Mutation(
        "Silence ends also what it was told to keep",
        "services/closing.py",
        "and_(_ended_by_silence(settings, deadline), ~_told_it_continues())",
        "_ended_by_silence(settings, deadline)",
        "tests/services/test_month_end_truths.py::test_who_was_told_that_silence_keeps_does_not_lapse_by_it",
    ),
    Mutation(
        "A warning with a link that opens nothing counts",
        "services/mail/recording.py",
        "            sent.once_key == outbox.case_key(Kind.WARNING, Case.address_generation),\n",
        "",
        "tests/services/test_month_end_truths.py::test_the_last_day_that_a_warning_names_is_the_one_that_holds",
    ),
    Mutation(
        "A declined return brings back an end that was refuted",
        "services/billing_answers.py",
        "        returning.reverse_what_was_refuted(session, claimed.member_id, now)\n",
        "        pass\n",
        "tests/services/test_month_end_truths.py::"
        "test_a_return_that_is_not_paid_for_does_not_bring_back_an_end_that_should_never_have_been",
    ),
    Mutation(
        "A bounce of an address that was replaced reverses an end",
        "services/returning.py",
        "            Message.to_address == Case.warned_to,\n",
        "",
        "tests/services/test_month_end_truths.py::"
        "test_scenario_13_a_late_bounce_of_an_address_that_was_replaced_in_time_reverses_nothing",
    ),
    Mutation(
        "A stop that was struck out counts as one",
        "services/closing_effects.py",
        "            BillingOrder.state != OrderState.SUPERSEDED,\n",
        "",
        "tests/services/test_month_end_truths.py::"
        "test_an_own_end_is_stopped_though_a_store_was_said_to_bill_it_for_a_while",
    ),
    Mutation(
        "A change of address holds without the present address",
        "services/own_settings.py",
        "if link.proven_at is None and another and asks_both(member):",
        "if False:",
        "tests/services/test_own_settings.py::test_nothing_changes_before_the_links_at_both_addresses_are_used",
    ),
    Mutation(
        "That was not me signs nobody out",
        "services/own_settings.py",
        "    sign_ins.end_all(session, member.id)\n",
        "",
        "tests/services/test_own_settings.py::test_whoever_did_not_ask_for_it_says_so_and_everybody_is_signed_out",
    ),
    Mutation(
        "Who is asked to end waits for as long as a server is silent",
        "jobs/scheduler.py",
        "worker.join(max(0.0, until - monotonic()))",
        "worker.join(20)",
        "tests/faults/test_downtime.py::test_sigterm_while_the_mail_server_says_nothing_is_obeyed_before_it_does",
    ),
    Mutation(
        "Who is asked to end keeps the lease",
        "jobs/runner.py",
        'lease.end("interrupted", done=False, wait=timedelta(0))',
        "pass",
        "tests/faults/test_downtime.py::"
        "test_sigterm_in_the_middle_of_a_month_end_ends_with_whole_windows_and_the_next_one_goes_on",
    ),
    # Promise 7: nothing is lost for ten months, nothing is kept after.
    Mutation(
        "Who is purged may keep a name",
        SCHEMA,
        "name IS NULL",
        "1 = 1",
        "tests/migrations/test_constraints.py::test_what_is_wrong_is_refused_by_the_database",
    ),
    Mutation(
        "A purge asks not whether keep-until has passed",
        "services/purging.py",
        "        Member.keep_until <= now,\n        or_(",
        "        or_(",
        "tests/services/test_conditions.py::test_nobody_is_purged_where_one_fact_speaks_against_it",
    ),
    Mutation(
        "A purge waits for no last notice",
        "services/purging.py",
        "        or_(Member.mail_state != MailState.GOOD, told, tried),\n",
        "",
        "tests/services/test_scenarios.py::test_scenario_39_purge_waits_for_the_last_notice",
    ),
    Mutation(
        "A purge leaves the replies of mail servers",
        "services/purging.py",
        '            magic_link_id=None,\n            smtp_reply="",\n',
        "            magic_link_id=None,\n",
        "tests/services/test_scenarios.py::test_scenario_38_a_purge_leaves_nothing_of_the_person",
    ),
    Mutation(
        "A purge does not wait for the provider",
        "services/purging.py",
        "Member.erase_requested_at.is_not(None), ~_owed_by_billing())",
        "Member.erase_requested_at.is_not(None))",
        "tests/services/test_scenarios.py::test_scenario_36_erasing_an_active_member_waits_for_the_stop",
    ),
    Mutation(
        "A return does not lock the member",
        "services/returning.py",
        '    member = lock(session, member_id)\n    if member is None:\n        raise Refused("There is no ended',
        '    member = session.get(Member, member_id)\n    if member is None:\n        raise Refused("There is no ended',
        "tests/faults/test_overlap.py::test_scenario_33_come_back_and_purge_at_the_same_instant",
        "postgresql",
    ),
    # Promise 8: a run that looks wrong stops itself.
    Mutation(
        "Close does not look whether a run looks wrong",
        "services/closing.py",
        "            hold = breaker.check(session, settings, campaign, at_most, now)\n",
        "            hold = None\n",
        "tests/services/test_scenarios.py::test_scenario_16_a_feed_that_died_holds_the_campaign_at_month_end",
    ),
    Mutation(
        "Close does not wait for a feed that is not complete",
        "services/breaker.py",
        "        return True, None\n",
        "        return False, None\n",
        "tests/services/test_scenarios.py::"
        "test_scenario_16_close_waits_for_a_feed_that_is_not_complete_through_the_deadline",
    ),
    Mutation(
        "A draft of too many is not held",
        "services/breaker.py",
        "        _too_many(session, settings, concerned),\n",
        "",
        "tests/services/test_scenarios.py::test_a_round_that_asks_over_a_fiftieth_is_held_and_one_of_a_handful_is_not",
    ),
    Mutation(
        "A share that jumps is not noticed",
        "services/breaker.py",
        "        _share_jumped(session, settings, campaign, concerned),\n",
        "",
        "tests/services/test_scenarios.py::test_scenario_41_a_half_dead_feed_holds",
    ),
    Mutation(
        "Close does not wait while the time is in doubt",
        "jobs/bodies.py",
        "    if name in timetable.FINAL:",
        "    if False:",
        "tests/faults/test_time.py::test_a_clock_set_forward_a_month_ends_nobody_until_an_operator_confirms_the_time",
    ),
    Mutation(
        "The demo's travelling counts as a jump",
        "adapters/clock.py",
        "        return SystemClock().booted_at()",
        "        return SystemClock().booted_at() + self.shift",
        "tests/faults/test_time.py::test_the_real_clock_stands_still_against_the_machines_start",
    ),
    # Promise 9: no token gives more than it must, or leaks.
    Mutation(
        "A link is taken whatever it was made for",
        "services/magic_links.py",
        "        MagicLink.token_hash == _digest(token),\n        MagicLink.purpose == purpose,\n"
        "        MagicLink.used_at",
        "        MagicLink.token_hash == _digest(token),\n        MagicLink.used_at",
        "tests/services/test_magic_links.py",
    ),
    Mutation(
        "A link of an earlier address opens the page",
        "services/notice.py",
        '    Case.public_id == bindparam("public_id"), Case.address_generation == bindparam("generation")\n',
        '    Case.public_id == bindparam("public_id")\n',
        "tests/web/test_checkin.py::test_scenario_13_a_link_of_an_earlier_address_shows_and_takes_nothing",
    ),
    Mutation(
        "A token's last bits do not matter",
        "services/check_in.py",
        "    if all(signed != kind(key, salt=salt).dumps(content) for key in settings.secrets for kind in kinds):\n",
        "    if False:\n",
        "tests/services/test_check_in.py::test_every_flipped_character_is_noticed",
        "",
    ),
    # Promise 10: anyone can see why.
    Mutation(
        "An event can be changed",
        SCHEMA,
        "for statement in GUARDS[dialect]:",
        "for statement in []:",
        "tests/migrations/test_constraints.py::test_an_event_is_never_changed",
    ),
    Mutation(
        "The SQL form forgets those who are exempt",
        "services/selection.py",
        "        (Member.exempt_reason.is_not(None), Code.EXEMPT_BY_IMPORT),\n",
        "",
        "tests/services/test_selection.py::test_the_sql_form_decides_as_the_rule_does",
    ),
    # Promise 11: no charge after the end.
    Mutation(
        "An end of one's own sends no stop",
        "services/decisions.py",
        "    if wish == Answer.LAPSE:\n        if is_billed(member):\n",
        "    if wish == Answer.LAPSE:\n        if False:\n",
        "tests/services/test_scenarios.py::test_scenario_22_keep_takes_a_stop_back",
    ),
    Mutation(
        "A stop that is being sent is struck out",
        "services/billing.py",
        "            BillingOrder.state == OrderState.QUEUED,\n            BillingOrder.attempts == 0,\n",
        "            BillingOrder.state != OrderState.DONE,\n",
        "tests/faults/test_overlap.py::test_scenario_34_a_return_a_minute_after_the_lapse_is_billed_once",
    ),
    Mutation(
        "The orders of one member go out at once",
        "services/billing_asking.py",
        "earlier.state.in_(UNFINISHED_ORDERS)",
        "earlier.state.in_([])",
        "tests/faults/test_overlap.py::test_scenario_34_a_return_a_minute_after_the_lapse_is_billed_once",
    ),
    # Imports.
    Mutation(
        "An import may lower a use",
        "services/files/member_upsert.py",
        '        if "last_used_at" in values and not correct_use:',
        "        if False:",
        "tests/services/test_importing.py::test_scenario_02_a_file_without_uses_loses_no_use_and_no_exemption",
    ),
    # After a restore.
    Mutation(
        "A restored round is not held",
        "services/breaker.py",
        "        _restored(session, campaign),\n",
        "",
        "tests/faults/test_backup.py::test_scenario_43_a_round_drafted_after_the_restore_is_held_too_and_can_be_released",
    ),
]
