"""A LUT as a value and on disk: schemas, codec, store; and what every package shares to read and write files."""
