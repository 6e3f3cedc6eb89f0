"""Explorer: environment, agent, baselines, report."""
