"""The session as one HTML file."""
