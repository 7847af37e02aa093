"""What must hold of the data between the stages: rules, the tables they judge, verdicts."""
