#!/bin/sh
# Writes the agent's version, which changes with the sources, into the built app's Info.plist. A build phase of the
# app: Xcode sets SRCROOT, TARGET_BUILD_DIR and INFOPLIST_PATH.
set -eu

version=$("$SRCROOT/../agent_version.sh")
plutil -replace BlocktimeAgentVersion -string "$version" "$TARGET_BUILD_DIR/$INFOPLIST_PATH"
