"""Decisions and recipes; knows no vendor and no environment."""
