"""The laboratory without a browser: policies of text-only toys, and the table of a grid on them."""
