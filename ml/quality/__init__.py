"""Data quality between the stages: rules, the tables that they judge, verdicts."""
