"""RQ's own URLs, as its users know them: curl lines, scripts, and other instances rely on them.

`routes`      which URL is answered where
`lists`       queues, for programs and shell scripts
`looking`     one message, its files, and the search
`creating`    messages come in
`acting`      what is done with one message
`operating`   what is done with a queue
`names`       which queue and message a URL means: router mode, full ids
`answers`     how all of them are answered

Pages for people are made by `rqcore_web.pages`, log views by `rqcore_web.logs`.
"""
