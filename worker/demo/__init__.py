"""The demo: its sample requests, its model files, and the page that shows its pictures."""
