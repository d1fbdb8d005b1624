"""Recipes: what is trained, for how long, which subnets are drawn, and the losses."""
