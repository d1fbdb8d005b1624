"""Check what is installed and attached, what each is needed for, and what to do if it is missing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from orchestrator.agent.device import how_to_build_agents
from orchestrator.agent.programs import AGENTS, agent_program
from orchestrator.devices.discover import list_attached
from orchestrator.wire.errors import DeviceError

_PACKAGES = {
    "torch": ("building and training networks", ""),
    "executorch": ("export to .pte and the host agent", ""),
    "coremltools": ("export to .mlpackage", ""),
    "timm": ("published networks and teachers", ""),
    "adb_shell": ("Android phones without an adb server", "android"),
    "adbutils": ("Android phones", "android"),
    "pymobiledevice3": ("iPhones", "ios"),
    "ray": ("many workers", "cluster"),
    "s3fs": ("LUTs shared through S3", "share"),
    "huggingface_hub": ("LUTs shared through the Hugging Face hub", "share"),
    "aiohttp": ("LUTs shared by a web server", "share"),
    "cryptography": ("signatures of LUTs", "share"),
    "onnxruntime": ("--runtime onnx on this machine", "onnx"),
    "ai_edge_litert": ("--runtime litert on this machine", "litert"),
}
_TOOLS = {
    "adb": "optional: starts the adb server for Android phones; adbutils brings it for most computers",
    "java": "the Kotlin agent on this machine",
    "g++": "native calls of the Python agent, and building the other two",
}


@dataclass(frozen=True)
class Need:
    """One requirement.

    Attributes:
        name: Package, tool, agent or kind of phone.
        present: Its version or path; empty if it is missing.
        use: What it is needed for.
        remedy: What to do if it is missing.
    """

    name: str
    present: str
    use: str
    remedy: str


def doctor() -> list[Need]:
    """Return the state of packages, tools and agents, and why phones are not found."""
    needs = [_package(name, use, extra) for name, (use, extra) in _PACKAGES.items()]
    needs += [Need(name, shutil.which(name) or "", use, f"install {name}") for name, use in _TOOLS.items()]
    needs += [_agent(language) for language in AGENTS]
    needs.append(_native_calls())
    needs += [
        Need(gap.kind, "", f"{gap.kind}: {gap.reason}", gap.next_step) for gap in list_attached().unavailable
    ]
    return needs


def _package(name: str, use: str, extra: str) -> Need:
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = ""
    return Need(name, installed, use, f"pip install 'blocktime[{extra}]'" if extra else f"pip install {name}")


def _native_calls() -> Need:
    """Return the state of the agent's native functions; without them it times ExecuTorch's Python binding."""
    use = "the Python agent's timing with no interpreter in it"
    if find_spec("executorch") is None:
        return Need("native calls", "", use, "pip install executorch")
    from orchestrator.agent.native import ShimMissingError, find_shim

    try:
        return Need("native calls", f"ExecuTorch {find_shim().runtime_version()}", use, "")
    except ShimMissingError as error:
        return Need("native calls", "", use, str(error))


def _agent(language: str) -> Need:
    use = f"--agent {language}"
    try:
        return Need(f"{language} agent", agent_program(language).command[0], use, "")
    except DeviceError:
        return Need(f"{language} agent", "", use, how_to_build_agents())
