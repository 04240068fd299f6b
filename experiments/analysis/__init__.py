"""What results say: paired differences, variance over seeds and tasks, one verdict a cell (`stats`), `collapse`."""
