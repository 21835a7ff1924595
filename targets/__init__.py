"""Boards and devices."""
