"""The stand-in of ExecuTorch's Android API: same signatures as the real one, same answers as the runtime."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.extension.pybindings import portable_lib

from tests.support.native_models import Exported

HERE = Path(__file__).parent
REAL_JAR = HERE.parents[1] / ".toolchains/android_api/executorch-android-api.jar"
CLASSES = (
    "DType",
    "EValue",
    "ExecuTorchRuntime",
    "ExecutorchRuntimeException",
    "MethodMetadata",
    "Module",
    "Tensor",
)

# What is not part of a signature: the stand-in's Tensor is one concrete class, the real one has subclasses.
_NO_SIGNATURE = re.compile(r"\b(abstract|native|synchronized) ")


def public_api(jar: Path) -> dict[str, set[str]]:
    """Class to its declaration and its public members': with a constant's value and a descriptor."""
    listed = subprocess.run(
        [
            "javap",
            "-cp",
            jar,
            "-public",
            "-s",
            "-constants",
            *(f"org.pytorch.executorch.{c}" for c in CLASSES),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    one_line_each = re.sub(r"\n\s+descriptor:", " descriptor:", listed)
    classes = one_line_each.split("Compiled from ")[1:]
    members = [[line.strip() for line in text.splitlines()[1:] if line.strip()] for text in classes]
    return {
        name: {_NO_SIGNATURE.sub("", member) for member in found}
        for name, found in zip(CLASSES, members, strict=True)
    }


@pytest.fixture(scope="module")
def apis(native: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The stand-in's and the real one's."""
    if not REAL_JAR.exists():
        pytest.skip("the real API jar is absent; run make toolchains")
    return public_api(native / "standin.jar"), public_api(REAL_JAR)


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_member_is_one_of_the_real_api(
    apis: tuple[dict[str, set[str]], dict[str, set[str]]], name: str
) -> None:
    ours, real = apis
    assert len(ours[name]) > 3
    assert ours[name] - real[name] == set()


def test_no_class_goes_unchecked(native: Path) -> None:
    listed = subprocess.run(
        ["jar", "tf", native / "standin.jar"], capture_output=True, text=True, check=True
    ).stdout.split()
    classes = {Path(name).stem for name in listed if name.endswith(".class")}
    assert {name for name in classes if "$" not in name} == set(CLASSES)


@pytest.fixture(scope="module")
def reported(native: Path, convolution: Exported, lookup: Exported) -> dict[str, str]:
    """What StandinCheck.java printed: first word of a line to its rest. -Xcheck:jni reports misuse on stdout."""
    command: list[str | Path] = [
        "java",
        "-Xcheck:jni",
        f"-Djava.library.path={native}",
        "-cp",
        native / "standin.jar",
    ]
    done = subprocess.run(
        [*command, HERE / "StandinCheck.java", convolution.path, lookup.path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING in native method" not in done.stdout
    assert "FATAL ERROR" not in done.stdout
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def of_python(exported: Exported, *inputs: np.ndarray) -> np.ndarray:
    method = portable_lib._load_for_executorch(str(exported.path))
    return np.array(method.run_method("forward", tuple(map(torch.from_numpy, inputs)))[0].numpy())


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32) / np.float32(1000)).reshape(shape)


def test_tells_methods_and_backends(reported: Mapping[str, str]) -> None:
    assert "XnnpackBackend" in reported["backends"]
    assert reported["methods"] == "[forward]"
    assert reported["used"] == "[XnnpackBackend]"
    assert reported["sizes"] == "[1, 8]"
    assert reported["types"] == "FLOAT BOOL"


def test_computes_what_the_python_runtime_computes(
    reported: Mapping[str, str], convolution: Exported, lookup: Exported
) -> None:
    expected = of_python(convolution, ramp(1, 3, 32, 32))
    np.testing.assert_allclose(json.loads(reported["convolution"]), expected[0], rtol=1e-6)
    expected = of_python(lookup, np.array([6, 0, 3, 1]), ramp(4, 5))
    np.testing.assert_allclose(json.loads(reported["lookup"]), expected.ravel(), rtol=1e-6)


def test_reads_inputs_again_at_every_call(reported: Mapping[str, str], lookup: Exported) -> None:
    """Though it binds them once: contents may have changed, or the call before may have failed on others."""
    indices = np.array([5, 0, 3, 1])
    for what, offset in (("rewritten", ramp(4, 5)), ("exchanged", np.zeros((4, 5), np.float32))):
        expected = of_python(lookup, indices, offset)
        np.testing.assert_allclose(json.loads(reported[what]), expected.ravel(), rtol=1e-6)
    assert reported["returned"] == "true"
    assert reported["swapped"].startswith("code 18 ")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("threads", "code 2 .*threads=2 asked"),
        ("missing", "code 34 .*No such file"),
        ("method", "code 18 .*no method backward"),
        ("count", "code 18 .*takes 1 inputs, got 0"),
        ("null", "code 18 "),
        ("nulls", "code 18 "),
        ("name", "code 18 "),
        ("shape", "code 1[68] "),
        ("type", "code 18 .*expected Float but was Long"),
        ("capacity", "IllegalArgumentException .*capacity"),
        ("heap", "IllegalArgumentException .*direct"),
        ("order", "IllegalArgumentException .*byte order"),
        ("data", "IllegalStateException .*float array"),
        ("dtype", "IllegalArgumentException .*99"),
        ("destroyed", "IllegalStateException Module has been destroyed"),
    ],
)
def test_failures_are_exceptions(reported: Mapping[str, str], what: str, expected: str) -> None:
    assert re.match(expected, reported[what]), reported[what]
