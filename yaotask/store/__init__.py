"""The durable store behind one small door: a mailbox in, one transaction, answers out."""
