"""The clients and stores that are compared, one module each; `catalogue` lists them."""
