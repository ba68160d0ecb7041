"""How the notebook is put together, and how it becomes a page."""
