"""The stages, a module each: `run(params, workspace, recipe) -> Output`."""
