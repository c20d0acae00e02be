"""The doors that an agent process sees: the native call API now; models and MCP later."""
