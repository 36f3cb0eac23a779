"""What starts runs by itself: jobs, schedules, sensors; the launcher that watches them."""
