"""Cases: kept, told from each other, and brought to an end.

    book = Casebook(node)
    book.take_in([record], form="vidx")     our own, out of the local case system
    book.inbox()                            what waits for a person: something is missing, or a partner referred it
    book.complete(case, statements)         a person has stated what was missing
    book.keep_house()                       what is past its time goes

Rules of this package (decision 0020):

1. A case has one name outside its sealed report: a local id of 16 random bytes in hex.
2. Nothing is guessed. What law and policy need and nobody has stated keeps a case in the inbox, and it goes nowhere.
3. A newer version replaces the whole report; an older one is refused, and so is the same version with other content.
4. Cases are judged as entries are, by a label, in the set `AGENCY/cases` of their originator.
"""

from gateway.cases.keeping import Casebook, CaseState, HeldCase, Statements, Taken

__all__ = ["CaseState", "Casebook", "HeldCase", "Statements", "Taken"]
