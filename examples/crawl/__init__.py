"""A site, page by page, by the links of its pages: a task that feeds itself, and ends by itself."""
