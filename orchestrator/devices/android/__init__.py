"""Android phones: found through an adb server or directly, given the app, started and connected to.

Only `server` imports adbutils and only `direct` imports adb_shell (the extra `android`); both are imported on use.
"""
