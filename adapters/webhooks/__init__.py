"""Calls to other people's addresses: whom they may reach (guard.py), and how (http.py)."""
