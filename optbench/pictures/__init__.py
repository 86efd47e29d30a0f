"""The pictures of a report, each kind in a module of its own."""
