"""Where an image comes from: bills of materials, the record of its build, and their way into the registry."""
