"""Widgets, item models, actions."""
