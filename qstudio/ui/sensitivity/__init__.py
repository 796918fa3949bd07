"""The tab that shows which layers hurt."""
