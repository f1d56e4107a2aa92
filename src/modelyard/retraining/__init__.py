"""The loop that closes itself: triggers, training in a child, champion against challenger, release."""
