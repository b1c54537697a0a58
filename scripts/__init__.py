"""One thin command per job: parse arguments, call one function, write files."""
