"""Where images come from: folders, tables, archives, hubs, and how a file becomes pixels."""
