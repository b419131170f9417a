"""The Agent Client Protocol over our connections: a bridge for editors, and a client for the command line."""
