"""iPhones over usbmuxd: found, paired, given the app, started and connected to.

Only `mobiledevice` imports pymobiledevice3 (GPL-3.0, the extra `ios`), and it is imported on use.
"""
