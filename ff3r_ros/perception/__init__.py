"""The perception node: subscriptions, sensor synchronisation, a worker thread, publishers."""
