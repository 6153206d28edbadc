"""What time drives: which jobs there are, when each is due, who runs it."""
