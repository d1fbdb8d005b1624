"""A look into an .ipa before it is sent to a phone."""

from __future__ import annotations

import plistlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.parsers.expat import ExpatError

from luts.format.errors import InvalidArtifactError
from orchestrator.devices.iphone.state import BUNDLE_PREFIX, is_bench_app

_MAX_IPA_BYTES = 1 << 30
_MAX_PLIST_BYTES = 1 << 20
_INFO_PLIST = re.compile(r"Payload/[^/]+\.app/Info\.plist")
_SIGNATURE = re.compile(r"Payload/[^/]+\.app/_CodeSignature/CodeResources")


@dataclass(frozen=True)
class AppPackage:
    """`bundle` is the identifier under which the phone will know the app."""

    bundle: str
    version: str


def read_ipa(path: Path) -> AppPackage:
    """What the package holds; InvalidArtifactError where it is not a signed one of the benchmark app."""
    try:
        if path.stat().st_size > _MAX_IPA_BYTES:
            raise InvalidArtifactError(f"{path} is over 1 GiB; give the .ipa that Xcode exported")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            plists = [name for name in names if _INFO_PLIST.fullmatch(name)]
            if len(plists) != 1 or archive.getinfo(plists[0]).file_size > _MAX_PLIST_BYTES:
                raise InvalidArtifactError(
                    f"{path} is not an .ipa: it needs one Payload/*.app with an Info.plist"
                )
            info = plistlib.loads(archive.read(plists[0]))
    except OSError as error:
        raise InvalidArtifactError(
            f"can't read {path}: {error.strerror}; give the path of the .ipa"
        ) from None
    except (zipfile.BadZipFile, ValueError, ExpatError, NotImplementedError, RuntimeError) as error:
        raise InvalidArtifactError(
            f"{path} is not an .ipa ({error}); give the one that Xcode exported"
        ) from None
    bundle = info.get("CFBundleIdentifier") if isinstance(info, dict) else None
    if not isinstance(bundle, str) or not is_bench_app(bundle):
        raise InvalidArtifactError(
            f"{path} holds {str(bundle)[:80]!r}, not {BUNDLE_PREFIX}; export ios_bench/App"
        )
    if not any(_SIGNATURE.fullmatch(name) for name in names):
        raise InvalidArtifactError(f"{path} is not signed: export it from Xcode with your team's certificate")
    return AppPackage(bundle, str(info.get("CFBundleShortVersionString", ""))[:64])
