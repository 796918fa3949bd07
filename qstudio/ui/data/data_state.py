"""Where the data stands: open, being opened, or missing."""

from __future__ import annotations

from qstudio.engine.messages import OpenDataset
from qstudio.session.session import Session


def is_opening(session: Session) -> bool:
    """Return whether a dataset is being read for the open model."""
    return any(isinstance(job.request, OpenDataset) for job in session.work)
