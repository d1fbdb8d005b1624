"""Sharing LUTs through folders, S3, the Hugging Face hub and web servers."""
