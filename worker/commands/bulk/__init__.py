"""Thousands of jobs at once: rows of a file or objects of a bucket, published once each, and their ends awaited."""
