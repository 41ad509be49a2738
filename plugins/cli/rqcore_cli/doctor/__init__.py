"""``rq doctor``: everything that can be looked at in an instance, with what to do about it.

`examine` goes through all examinations, each by itself; `patient` is what they look at.  An examination
yields `rqcore.hookspecs.Check` objects, ok ones too, and changes nothing; what its ``fix`` does is safe
while RQ runs.
"""
