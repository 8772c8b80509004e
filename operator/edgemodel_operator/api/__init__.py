"""The contract with users: the resource types, their names, and the documents generated from them."""
