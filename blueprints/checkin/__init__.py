"""The page on which a member keeps the membership or ends it: behind the link of a mail, and for whoever is signed in.

Looking changes nothing, whatever looks (design promise 3). A press answers for the case of the address it was made to,
never for whoever else happens to be signed in.
"""

from blueprints.checkin.views import blueprint

__all__ = ["blueprint"]
