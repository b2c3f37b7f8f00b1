"""Numbers in, figures out. Nothing here knows Lightning or trains."""
