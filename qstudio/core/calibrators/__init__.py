"""What the calibrators compute, a file for each kind of search; `qstudio.core.calibration` lists them for people."""
