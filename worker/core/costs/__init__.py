"""Costs of jobs: bill, daily budget, reports, use of the engine."""
