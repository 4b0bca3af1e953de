"""Everything that draws with pyqtgraph, imported after the first paint."""
