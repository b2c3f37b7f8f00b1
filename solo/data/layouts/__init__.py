"""Published data sets in the layout in which they are published, one `Layout` each. No torch until one is fetched."""
