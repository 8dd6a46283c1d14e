"""Known mistakes, planted into the product and hunted for."""
