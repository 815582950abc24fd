"""The demo: a real model, a real attack, a real alert, in about a minute and without a Kafka installation."""
