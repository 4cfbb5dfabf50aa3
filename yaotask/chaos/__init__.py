"""`yaotask chaos`: the real thing, broken on purpose, and a verdict over what it left behind."""
