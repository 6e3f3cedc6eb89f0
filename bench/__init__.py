"""Measurements of speed and area; `python -m bench` prints them all."""
