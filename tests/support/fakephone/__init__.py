"""An Android phone behind adb, without one."""
