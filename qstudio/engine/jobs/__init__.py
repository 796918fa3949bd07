"""Jobs: one pure function for each request."""
