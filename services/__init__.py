"""Use cases: functions of (session, …, now). They flush and never commit; who calls them commits, once."""
