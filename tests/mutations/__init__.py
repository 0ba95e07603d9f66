"""Break the code on purpose, one promise at a time, and see a test fail.

    make mutations                                  every mutation of table.py
    python -m tests.mutations ledger-hash-who       some of them, by name
    python -m tests.mutations --list                their names and promises

A mutation is one small, wrong change of the product that breaks one promise. It is applied to a
copy of the working tree in a temporary folder, and the tests that guard the promise run there. If
they pass all the same, the mutation SURVIVED: the promise has no test, and the exit code is 1.

To add one: write a `Mutation` into table.py, with a text that occurs exactly once in its file. If
it survives, add a test that catches it. Product code that moves takes its mutation's text along: a
unit test compares the table with the sources, so a stale entry is noticed at once.
"""
