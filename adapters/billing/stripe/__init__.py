"""Stripe as a billing provider (BILLING=stripe), by its official library."""
