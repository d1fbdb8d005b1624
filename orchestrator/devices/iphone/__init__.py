"""iPhones over usbmuxd: found, trusted, given the app, started and connected to.

Only `mobiledevice` imports pymobiledevice3 (GPL-3.0, the extra `ios`); everything else does without.
"""
