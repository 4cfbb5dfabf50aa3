"""The checker: from the facts of a run to the promises that were not kept. Pure functions, one a promise."""

from yaotask.chaos.check.judge import judge as judge
