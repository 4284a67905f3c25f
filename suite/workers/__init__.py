"""Where trials become answers: processes, devices, and the clocks that they are charged by."""
