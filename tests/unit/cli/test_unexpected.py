"""What nobody foresaw is one line too, with what is known of it; Ctrl-C at any moment is not an error."""

import errno

import pytest
from pydantic import BaseModel

from luts.format.errors import UsageError
from orchestrator.cli import main
from orchestrator.cli.main import exit_code
from orchestrator.export import pool
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.pool import ExportError, ExportFailure, export_many
from tests.support.bench import bench


class Document(BaseModel):
    format_version: int


def raised(make):
    def app():
        make()

    return app


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: Document.model_validate({"format_version": "new"}),
            "bench: unexpected ValidationError: format_version = 'new': should be a valid integer",
        ),
        (lambda: fail(OSError(errno.ENOSPC, "No space left")), "bench: no space left on the disk; free some"),
        (
            lambda: fail(OSError(errno.ENOSPC, "", "/a/b")),
            "bench: no space left on the disk (/a/b); free some",
        ),
        (
            lambda: fail(PermissionError(errno.EACCES, "Permission denied", "/a/b")),
            "bench: /a/b: Permission denied;",
        ),
        (
            lambda: fail(ValueError("first\nsecond")),
            "bench: unexpected ValueError: first; run again with --debug",
        ),
    ],
)
def test_one_line_says_what_is_known(monkeypatch, make, expected):
    monkeypatch.setattr(main, "app", raised(make))
    done = bench("space", "list")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(expected)


@pytest.mark.parametrize(("unknown", "code"), [((True, True), 2), ((True, False), 1)])
def test_models_that_there_are_not_are_a_usage_error(monkeypatch, unknown, code):
    specs = [ExportSpec(module=name) for name in ("timm:a", "timm:b")]
    failures = [ExportFailure(spec, "why", known) for spec, known in zip(specs, unknown, strict=True)]
    monkeypatch.setattr(pool, "export_each", lambda *_, **__: failures)
    with pytest.raises(ExportError) as error:
        export_many(specs)
    assert exit_code(error.value) == code
    assert isinstance(error.value, UsageError) == all(unknown)
