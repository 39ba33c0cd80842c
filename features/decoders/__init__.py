"""Readers that turn one video into frames, one file per decoder; `features.decode` is the door to them."""
