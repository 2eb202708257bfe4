"""Statistics -> matplotlib `Figure`s, in the house style of `tracking.figures`; nothing here knows a file or a run."""
