"""Android phones: found over adb, with or without an adb server, and driven through the blocktime app."""
