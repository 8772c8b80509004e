"""The command line: what a person does from a shell."""
