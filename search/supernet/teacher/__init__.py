"""A teacher: its network, its logits, and the labels stored of them."""
