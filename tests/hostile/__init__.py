"""Files that were damaged, or made to do damage: each gives what is right, or one sentence, and nothing else happens.

`cases.py` says what a case is, one file a kind holds its table, `guard.py` runs a case in a child process under limits
(`child.py`), and `test_corpus.py` runs them all. `readers.py` lists what reads files and `fuzz.py` throws bytes at it.
"""
