"""Memory on screen: the live chart, the curve over context lengths, the plan table, the gauges, the reasons."""
