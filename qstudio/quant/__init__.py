"""What a number becomes: statistics, quantizers, simulation, PTQ."""
