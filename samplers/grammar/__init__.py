"""Decoding under the page's grammar: compiled automata, their sums, and the distributions that they leave."""
