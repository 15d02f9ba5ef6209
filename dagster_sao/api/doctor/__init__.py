"""Checks a state-aware project for settings that don't do what they appear to."""
