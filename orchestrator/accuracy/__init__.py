"""Predictions of exported programs and PyTorch for images."""
