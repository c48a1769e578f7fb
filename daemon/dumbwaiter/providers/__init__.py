"""Configured accounts: their permissions and sessions, what goes wrong there, and what they tell of their own contents."""
