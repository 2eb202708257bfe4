"""The figures of the report, in the style of `tracking.figures`; each module registers its own, see `report_figure`."""
