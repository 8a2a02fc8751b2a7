"""The paper's tables as tasks: a configuration and a function that gives results, one module each."""
