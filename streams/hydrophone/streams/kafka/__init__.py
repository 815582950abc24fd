"""What knows a broker: administration, and the embedded broker. `streams/topics.py` says which topics there are."""
