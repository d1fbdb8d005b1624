"""The command `bench`: options in, other packages called, tables and files out."""
