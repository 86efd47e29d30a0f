"""Papers as executable tables: what was published, what is measured here, and whether the two agree."""
