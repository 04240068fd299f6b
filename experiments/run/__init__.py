"""The running of a grid: the folder of a run (`folder`), what runs units in it (`runner`, `cell`, `ray`), archives."""
