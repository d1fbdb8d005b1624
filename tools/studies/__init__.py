"""Studies behind docs/studies, on a small scale: functions of `Options` that return tables, by topic."""
