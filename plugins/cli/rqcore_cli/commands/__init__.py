"""The commands of ``rq``, each module imported when one of its commands is called."""
