"""LUTs in places that others reach: folders, S3, the Hugging Face hub, web servers."""
