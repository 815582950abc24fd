"""`python -m hydrophone.streams.cli`: the program without its installed entry point."""

from hydrophone.streams.cli import main

main()
