"""``rq check`` and ``check_rq``: how an instance is, in one line and an exit status for Nagios.

`sources` looks, over the sockets or over HTTP; `verdict` judges by `ranges`; `runner` binds the two.
Nothing here needs more than the standard library, so that ``check_rq`` runs on a monitoring host that
has a bare Python.
"""
