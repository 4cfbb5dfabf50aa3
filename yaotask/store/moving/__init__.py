"""A store carried to another database: all jobs in every state, and all that belongs to them."""
