"""The documentation site: the pages of docs/, the reference made from the code, and what checks them."""
