"""The searches of a spec, each judged, and the boards that their results make."""
