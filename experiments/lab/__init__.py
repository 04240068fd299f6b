"""The laboratory without a browser: policies of text-only toys, warm-started on the spot, and the table of a grid on them."""
