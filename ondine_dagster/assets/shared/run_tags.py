"""Tags of the runs that schedule and sensors launch: whose they are, and what follows them.

Runs that a person starts have none of these, and nothing follows them.
"""

DATASET = "ondine/dataset"
BY, WATCH, SCHEDULE = "ondine/by", "watch", "schedule"
THEN, MISSING = "ondine/then", "missing"  # on a snapshot run: what follows when it succeeds
FOLLOWS = "ondine/follows"  # on a run that labels: the snapshot run that it follows
