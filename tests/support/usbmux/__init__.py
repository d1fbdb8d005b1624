"""An iPhone behind a usbmuxd of its own, without either."""
