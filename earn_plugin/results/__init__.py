"""Tables from the results.json files of tests, each with its protocol, next to the figures that papers print."""
