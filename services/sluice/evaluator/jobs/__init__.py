"""Evaluations as jobs: kept in a database, run one after another, resumed where they were."""
