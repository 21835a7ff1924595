"""Devices of other computers as if they were here: whole sessions, over TVM RPC and a tracker."""
