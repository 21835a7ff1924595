"""Search for better schedules on a device."""
