"""A LUT as a value and on disk: schemas, codec, store.

And what every package shares to read and write files.
"""
