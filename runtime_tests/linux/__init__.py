"""Sessions with boards that run Linux, over TVM's RPC: tracker, servers, emulated boards."""
