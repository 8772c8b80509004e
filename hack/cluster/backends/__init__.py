"""The ways to get a cluster; `choose` picks one."""
