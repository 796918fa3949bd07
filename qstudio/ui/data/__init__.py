"""The data panel: what the network is fed."""
