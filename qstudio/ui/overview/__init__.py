"""All layers at a glance: ranges and error over depth."""
