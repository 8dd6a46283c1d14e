"""Speed beside what people would pick instead: every figure is a ratio within one run."""
