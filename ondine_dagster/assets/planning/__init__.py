"""What a run would do, cost and send, before anybody is asked."""
