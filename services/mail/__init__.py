"""Mail out: claimed, paced, put into words, sent, recorded; and what comes back of it."""
