"""From parts to files: Amaranth components and templates become a dictionary {path: text}, then a folder."""
